"""With a real MLflow database and real models, logged and downloaded; nothing is mocked."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from pipeline.commands.export import export_model
from pipeline.commands.predict import predict_images
from pipeline.config.params import Params, load_params
from pipeline.config.sections import Compare
from pipeline.images.prepared import PreparedImages
from pipeline.images.seen_images import hashes_of, was_seen
from pipeline.registry import promotion
from pipeline.registry.challenger import choose
from pipeline.registry.decision import REASON, Decision
from pipeline.registry.promotion import Contender, decide, is_decided, promote
from pipeline.registry.versions import rollback
from pipeline.report.results import read_run
from pipeline.tracking.logged_model import logged_models
from pipeline.tracking.outbox import Outbox
from pipeline.training.model_address import open_model
from pipeline.training.saved_model import TrainedModel
from stochca.errors import UserError
from tests.pipeline.colour_models import (
    CARD,
    TEST_IMAGES,
    Item,
    colour_model,
    items,
    picture,
    publish,
    replaced,
    with_promotion,
    write_backbone,
    write_prepared,
)
from tests.pipeline.synthetic_runs import write_params

# On test finetune-all-0 is right about 43 of 60 images, finetune-all-1 about 57, stochca-all-0 about all.
FORGETS = {("finetune", 0): ["blue"], ("finetune", 1): ["white"], ("stochca", 0): [], ("stochca", 1): ["red"]}
VALIDATION = {("finetune", 0): 0.6, ("finetune", 1): 0.5, ("stochca", 0): 0.9, ("stochca", 1): 0.3}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prepared images, runs, and the MLflow database that they were tracked to."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        params = write_params(
            folder, seeds=(0, 1), protocol={"baseline": ["finetune"], "combined": []}, bootstrap_samples=2000
        )
        write_backbone(folder / "data" / "backbone")
        write_prepared(folder / "data" / "prepared", items())
        for (method, seed), forgets in FORGETS.items():
            publish(params, method, seed, colour_model(forgets), VALIDATION[method, seed])
    return folder


@pytest.fixture
def params(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The project's params, in a copy of it."""
    shutil.copytree(project, tmp_path / "project", ignore=shutil.ignore_patterns("mlruns"))
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return load_params()


def aliases() -> dict[str, str]:
    return {k: str(v) for k, v in MlflowClient().get_registered_model("stochca").aliases.items()}


def prefer(method: str, seed: int) -> None:
    """Make a seed the best of its method on validation."""
    replaced(Path("metrics") / f"{method}-all-{seed}.json", validation_accuracy=0.99)


def test_the_first_model_then_a_better_one(params: Params) -> None:
    first = promote(with_promotion(params, "finetune"))
    assert first.promoted
    assert first.reason == "version 1 (finetune, seed 0) is the first model: it is the champion"
    assert aliases() == {"champion": "1"}

    second = promote(params)  # the best on validation is stochca's seed 0
    assert second.promoted
    assert second.difference is not None
    assert second.difference.mean == pytest.approx(TEST_IMAGES["blue"] / 60)
    assert second.difference.low > 0
    assert (second.champion, second.challenger, second.test_images, second.left_out) == ("1", "2", 60, 0)
    assert aliases() == {"champion": "2", "previous": "1"}

    client = MlflowClient()
    version = client.get_model_version("stochca", "2")
    assert version.description == second.reason
    assert second.reason.startswith(
        "version 2 (stochca, seed 0) is better than the champion, version 1 (finetune, seed 0): +28.3 points"
    )
    expected = {"method": "stochca", "seed": "0", "test_accuracy": "1.0", "promotion": "promoted"}
    assert expected.items() <= version.tags.items()
    assert {"dataset_fingerprint", "git_commit", "validation_accuracy"} <= version.tags.keys()
    run = client.get_run(version.run_id)
    assert run.data.tags["promotion_reason"] == second.reason
    assert run.data.metrics["promotion_difference"] == pytest.approx(TEST_IMAGES["blue"] / 60)
    assert run.data.metrics["promotion_low"] == pytest.approx(second.difference.low)
    assert run.data.tags["mlflow.note.content"] == f"A note of the run.\n\n{second.markdown}"
    assert "| version 2 | version 1 | +0.2833 |" in second.markdown

    again = promote(params)
    assert again == Decision(False, "version 2 is the champion already; nothing to do")
    assert aliases() == {"champion": "2", "previous": "1"}
    assert len(client.search_model_versions("name = 'stochca'")) == 2
    assert client.get_model_version("stochca", "2").description == second.reason


def test_a_worse_challenger_is_refused(params: Params) -> None:
    promote(params)
    decision = promote(with_promotion(params, "finetune"))
    assert not decision.promoted
    assert "version 2 (finetune, seed 0) is worse than the champion, version 1 (stochca" in decision.reason
    assert decision.reason.endswith("on 60 images; the champion stays")
    assert aliases() == {"champion": "1", "challenger": "2"}
    version = MlflowClient().get_model_version("stochca", "2")
    assert (version.tags["promotion"], version.description) == ("refused", decision.reason)


def test_a_challenger_that_is_better_within_the_noise_is_refused(params: Params) -> None:
    prefer("finetune", 1)
    promote(with_promotion(params, "finetune"))
    decision = promote(with_promotion(params, "stochca"))  # 3 images of 60 more
    assert decision.difference is not None
    assert decision.difference.mean == pytest.approx(3 / 60)
    assert not decision.promoted
    assert "is not better beyond the noise than the champion" in decision.reason
    assert aliases() == {"champion": "1", "challenger": "2"}
    promote(with_promotion(params, "stochca"))  # registered once
    assert aliases() == {"champion": "1", "challenger": "2"}


def test_a_model_is_decided_on_once_it_was_promoted_refused_or_rolled_back(params: Params) -> None:
    finetune = with_promotion(params, "finetune")
    assert not is_decided(params)  # no champion
    promote(finetune)
    assert is_decided(finetune)
    assert not is_decided(params)  # stochca's model has not been compared
    promote(params)
    assert is_decided(params)
    rollback("stochca")
    assert is_decided(params)
    prefer("finetune", 1)
    assert not is_decided(finetune)
    promote(finetune)
    prefer("stochca", 1)
    assert not promote(params).promoted
    assert is_decided(params)


@pytest.mark.parametrize("lost", ["record", "crown", "conclude"])
def test_a_promotion_that_did_not_come_to_its_end_is_not_forgotten(
    lost: str, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    promote(with_promotion(params, "finetune"))
    with monkeypatch.context() as patch:
        patch.setattr(promotion, lost, killed)
        with pytest.raises(KeyboardInterrupt):
            promote(params)
    assert is_decided(params) == (aliases()["champion"] == "2")
    promote(params)
    assert aliases() == {"champion": "2", "previous": "1"}
    assert is_decided(params)
    assert "is better than the champion" in MlflowClient().get_model_version("stochca", "2").tags[REASON]


def test_what_no_promotion_could_change_is_decided(params: Params) -> None:
    promote(with_promotion(params, "finetune"))
    assert not is_decided(params)
    run_id = read_run(params.protocol, "stochca", "all", 0).description["mlflow_run_id"]
    client = MlflowClient()
    (logged,) = logged_models(client, client.get_run(run_id))
    client.delete_logged_model(logged.model_id)  # as if tracking.log_model had been false
    assert is_decided(params)
    waiting = Outbox.of_run(run_id, "stochca-all-0")
    waiting.keep_end("FINISHED")
    assert not is_decided(params)


def test_who_lost_against_another_champion_has_its_turn_again(params: Params) -> None:
    promote(params)
    first = with_promotion(params, "finetune")
    assert not promote(first).promoted
    assert is_decided(first)
    other = MlflowClient().create_model_version("stochca", "file:///nowhere")
    MlflowClient().set_registered_model_alias("stochca", "champion", other.version)
    assert not is_decided(first)


def test_rolling_back(params: Params) -> None:
    with pytest.raises(UserError, match=r"'stochca' has no alias 'previous'.*it has no version"):
        rollback("stochca")
    promote(with_promotion(params, "finetune"))
    with pytest.raises(UserError, match=r"has no alias 'previous'; .* --to: its versions are 1"):
        rollback("stochca")
    promote(params)
    assert rollback("stochca").startswith(
        "version 1 of stochca is the champion again, in place of version 2, which is not promoted again"
    )
    assert aliases() == {"champion": "1", "previous": "2"}
    decision = promote(params)  # the nightly run must not undo what a person did
    assert not decision.promoted
    assert "was rolled back; version 1 (finetune, seed 0) stays the champion" in decision.reason
    assert aliases() == {"champion": "1", "previous": "2", "challenger": "2"}
    with pytest.raises(UserError, match="has no version 7; its versions are 1, 2"):
        rollback("stochca", "7")
    with pytest.raises(UserError, match="version 1 of stochca is the champion already"):
        rollback("stochca", "1")
    rollback("stochca", "2")
    assert aliases() == {"champion": "2", "previous": "1"}
    assert "rolled_back" not in MlflowClient().get_model_version("stochca", "2").tags


def test_addresses_of_the_registry(params: Params, tmp_path: Path) -> None:
    promote(with_promotion(params, "finetune"))
    promote(params)
    (tmp_path / "photo.png").write_bytes(picture("blue", "new"))
    for address, colour in (("models:/stochca@champion", "blue"), ("models:/stochca/2", "blue")):
        (prediction,) = predict_images(Path(address), [tmp_path / "photo.png"], 1)
        assert prediction.classes == [colour]
    (prediction,) = predict_images(Path("models:/stochca@previous"), [tmp_path / "photo.png"], 1)
    assert prediction.classes != ["blue"]  # which version 1 forgot
    assert export_model(Path("models:/stochca@champion"), "timm", None).startswith("stochca-2-timm: ")
    assert Path("stochca-2-timm", "config.json").exists()


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("models:/nobody/1", "MLflow has no registered model 'nobody' with a version; it has stochca$"),
        ("models:/stochca@king", "no alias 'king'; it has the versions 1 and @champion .version 1.$"),
        ("models:/stochca/9", "no version 9; it has the versions 1 and @champion .version 1.$"),
        ("models:/stochca", "is no address; write models:/NAME@ALIAS or models:/NAME/VERSION"),
        ("models:/o'brien/1", "o'brien"),
    ],
)
def test_an_address_of_nothing_is_one_sentence(address: str, sentence: str, params: Params) -> None:
    promote(params)
    with pytest.raises(UserError, match=sentence) as error:
        open_model(Path(address))
    assert "\n" not in str(error.value)


def test_asking_for_an_address_makes_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match=r"there is no mlflow\.db here; set MLFLOW_TRACKING_URI"):
        open_model(Path("models:/stochca@champion"))
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_its_model_or_not_sent_yet(params: Params) -> None:
    publish(params, "stochca", 0, colour_model(), 0.9, upload=False)
    with pytest.raises(UserError, match=r"no model of results/stochca-all-0; set tracking.log_model: true"):
        promote(params)
    run_id = read_run(params.protocol, "stochca", "all", 0).description["mlflow_run_id"]
    waiting = Outbox.of_run(run_id, "stochca-all-0")
    waiting.keep_end("FINISHED")
    with pytest.raises(UserError, match=r"results/stochca-all-0, which is in work/unsynced/.*stochca sync"):
        promote(params)
    shutil.rmtree(waiting.folder)
    description = Path("results/stochca-all-0/run.json")
    description.write_text(description.read_text().replace(run_id, "f" * 32))
    with pytest.raises(UserError, match=r"MLflow has no run f+, which trained results/stochca-all-0; set"):
        promote(params)


def test_the_challenger_is_chosen_on_validation_by_the_mean_over_seeds(params: Params) -> None:
    def run(method: str, seed: int, validation: float, test: float) -> Any:
        metrics = {"validation_accuracy": validation, "test_accuracy": test}
        return SimpleNamespace(method=method, target="all", seed=seed, metrics=metrics)

    runs = [
        run("finetune", 0, 0.95, 0.99),  # the best single seed, and the best on test
        run("finetune", 1, 0.55, 0.99),
        run("stochca", 0, 0.80, 0.50),
        run("stochca", 1, 0.81, 0.40),
    ]
    assert (choose(params, runs).method, choose(params, runs).seed) == ("stochca", 1)
    named = choose(with_promotion(params, "finetune"), runs)
    assert (named.method, named.seed) == ("finetune", 0)


def test_where_nothing_was_validated_a_named_method_sends_its_first_seed(params: Params) -> None:
    def run(method: str, seed: int, test: float) -> Any:
        return SimpleNamespace(method=method, target="all", seed=seed, metrics={"test_accuracy": test})

    runs = [run("finetune", 0, 0.5), run("finetune", 1, 0.9), run("stochca", 0, 0.5), run("stochca", 1, 0.9)]
    chosen = choose(with_promotion(params, "stochca"), runs)
    assert (chosen.method, chosen.seed) == ("stochca", 0)
    with pytest.raises(UserError, match=r"best chooses on .* images, which protocol.refit trained on"):
        choose(params, runs)


@pytest.fixture
def contender() -> Callable[..., Contender]:
    def contender(forgets: list[str], number: int, seen: np.ndarray, **options: Any) -> Contender:
        model = colour_model(forgets, **options)
        classes = options.get("classes", ("red", "green", "blue", "white"))
        card = {**CARD.to_dict(), "classes": list(classes), "weights_sha256": str(number)}
        version: Any = SimpleNamespace(version=str(number), tags={"method": "m", "seed": "0"})
        return Contender(version, TrainedModel(model, card), seen)

    return contender


COMPARE = Compare.model_validate({"bootstrap_samples": 1000, "confidence": 0.95})
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
