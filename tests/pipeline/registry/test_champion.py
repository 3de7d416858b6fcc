"""What is decided about models that are right about different colours."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.config.sections import Compare
from pipeline.images.prepared import PreparedImages
from pipeline.images.seen_images import hashes_of, was_seen
from pipeline.registry.champion import Contender, decide
from pipeline.training.saved_model import TrainedModel
from tests.pipeline.colour_models import (
    CARD,
    TEST_IMAGES,
    Item,
    colour_model,
    items,
    write_prepared,
)


@pytest.fixture
def contender() -> Callable[..., Contender]:
    def contender(forgets: list[str], number: int, seen: np.ndarray, **options: Any) -> Contender:
        model = colour_model(forgets, **options)
        classes = options.get("classes", ("red", "green", "blue", "white"))
        card = {**CARD.to_dict(), "classes": list(classes), "weights_sha256": str(number)}
        version: Any = SimpleNamespace(version=str(number), tags={"method": "m", "seed": "0"})
        return Contender(version, TrainedModel(model, card), seen)

    return contender


COMPARE = Compare(bootstrap_samples=1000, confidence=0.95, reference="finetune", analysed=["finetune"])
NOTHING = np.array([], np.uint64)


def moved(items: list[Item], **changes: str) -> list[Item]:
    """The same images, some of them in another split."""
    return [
        (id, label, changes.get(id.replace("/", "_").replace("-", "_"), split)) for id, label, split in items
    ]


def test_test_images_that_the_champion_was_trained_on_are_left_out(
    contender: Callable[..., Contender], tmp_path: Path
) -> None:
    before = write_prepared(tmp_path / "before", items())
    today = moved(items(), blue_train_00="test", blue_train_01="test", red_val_00="test")
    prepared = write_prepared(tmp_path / "today", today)
    seen = np.unique(np.concatenate([hashes_of(before.images(split)).ravel() for split in ("train", "val")]))
    test = prepared.images("test")
    assert [test.ids[i] for i in np.flatnonzero(was_seen(test, seen))] == [
        "red/val-00", "blue/train-00", "blue/train-01",
    ]  # fmt: skip
    decision = decide(contender([], 2, NOTHING), contender(["blue"], 1, seen), prepared, COMPARE)
    assert (decision.test_images, decision.left_out) == (60, 3)
    assert decision.difference is not None
    assert decision.difference.mean == pytest.approx(17 / 60)
    assert "on 60 images; 3 that a model had seen in training or validation were left out;" in decision.reason

    everything = hashes_of(test).ravel()
    decision = decide(contender([], 2, NOTHING), contender(["blue"], 1, everything), prepared, COMPARE)
    assert not decision.promoted
    assert "can't be compared" in decision.reason


def test_a_seen_image_is_known_by_its_name_or_by_its_content(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path / "a", items())
    test = prepared.images("test")
    renamed = PreparedImages(test._table, test._rows)
    renamed.ids = [f"renamed/{id}" for id in test.ids]
    assert was_seen(renamed, hashes_of(test)[:2].ravel()).tolist() == [True, True] + [False] * 58
    other = hashes_of(test)
    other[:, 1] += 1  # other contents under the same names
    assert was_seen(test, other[5:6].ravel()).nonzero()[0].tolist() == [5]


def test_a_class_that_the_champion_does_not_know_is_wrong_and_others_match_by_name(
    contender: Callable[..., Contender], tmp_path: Path
) -> None:
    prepared = write_prepared(tmp_path / "today", items())
    champion = contender([], 1, NOTHING, classes=("blue", "green", "red"))  # another order, no white
    decision = decide(contender([], 2, NOTHING), champion, prepared, COMPARE)
    assert decision.difference is not None
    assert decision.difference.mean == pytest.approx(TEST_IMAGES["white"] / 60)


def test_the_same_weights_from_another_run_change_nothing(
    contender: Callable[..., Contender], tmp_path: Path
) -> None:
    prepared = write_prepared(tmp_path / "today", items())
    challenger = contender([], 1, NOTHING)
    other: Any = SimpleNamespace(version="2", tags={})
    decision = decide(Contender(other, challenger.model, NOTHING), challenger, prepared, COMPARE)
    assert not decision.promoted
    assert "has the weights of the champion" in decision.reason
