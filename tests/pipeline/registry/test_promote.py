"""With a real MLflow database and real models, logged and downloaded; the last tests compare models alone."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from pipeline.config.params import Params
from pipeline.config.sections import Compare
from pipeline.images.prepared import PreparedImages
from pipeline.images.seen_images import group_was_seen, hashes_of, read_seen, was_seen, write_seen
from pipeline.registry import promote as promotion
from pipeline.registry.promote import (
    REASON,
    Contender,
    Decision,
    check_same_task,
    check_sizes,
    choose,
    decide,
    is_decided,
    promote,
)
from pipeline.registry.versions import rollback
from pipeline.report.results import read_run
from pipeline.runtime.paths import RUNS
from pipeline.tracking.logged_model import logged_models
from pipeline.tracking.run_folder import RunFolder
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
    with_promotion,
    write_prepared,
)
from tests.pipeline.prepared_folder import Row, write_prepared_folder
from tests.pipeline.registry.conftest import aliases, prefer


def test_a_champion_that_was_deleted_is_not_replaced_by_the_next_best(params: Params) -> None:
    promote(with_promotion(params, "finetune"))
    promote(params)
    MlflowClient().delete_model_version("stochca", "2")
    with pytest.raises(
        UserError, match=r"has lost its champion.*say which of 1 it is: stochca rollback --to 1"
    ):
        promote(params)
    assert rollback("stochca", "1") == "version 1 of stochca is now the champion"
    again = promote(params)
    assert again.promoted
    assert again.champion == "1"


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
    # What MLflow shows is of the chosen weights and the whole run, and not the end of a curve.
    told = {key: run.data.metrics[key] for key in ("validation_accuracy", "images_per_second")}
    assert told == {"validation_accuracy": 0.9, "images_per_second": 1.0}
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


def test_a_challenger_that_is_not_shown_to_be_better_is_refused(params: Params) -> None:
    prefer("finetune", 1)
    promote(with_promotion(params, "finetune"))
    decision = promote(with_promotion(params, "stochca"))  # 3 images of 60 more
    assert decision.difference is not None
    assert decision.difference.mean == pytest.approx(3 / 60)
    assert not decision.promoted
    assert "is not shown to be better than the champion" in decision.reason
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
    RunFolder.of_known_run(RUNS / "stochca-all-0", run_id).end("FINISHED")
    assert not is_decided(params)


def test_who_lost_against_another_champion_has_its_turn_again(params: Params) -> None:
    promote(params)
    first = with_promotion(params, "finetune")
    assert not promote(first).promoted
    assert is_decided(first)
    other = MlflowClient().create_model_version("stochca", "file:///nowhere")
    MlflowClient().set_registered_model_alias("stochca", "champion", other.version)
    assert not is_decided(first)


def test_a_run_without_its_model_or_not_sent_yet(params: Params) -> None:
    publish(params, "stochca", 0, colour_model(), 0.9, upload=False)
    with pytest.raises(UserError, match=r"no model of results/stochca-all-0; set tracking.log_model: true"):
        promote(params)
    run_id = read_run(params.protocol, "stochca", "all", 0).description["mlflow_run_id"]
    waiting = RunFolder.of_known_run(RUNS / "stochca-all-0", run_id)
    waiting.end("FINISHED")
    with pytest.raises(UserError, match=r"results/stochca-all-0, which is in work/runs/.*stochca sync"):
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


def test_the_challenger_of_a_loss_has_the_smallest(params: Params) -> None:
    def run(method: str, loss: float) -> Any:
        metrics = {"validation_log_loss": loss, "validation_accuracy": loss}
        return SimpleNamespace(method=method, target="all", seed=0, metrics=metrics)

    protocol = params.protocol.model_copy(update={"selection": "log_loss"})
    params = params.model_copy(update={"protocol": protocol})
    assert choose(params, [run("finetune", 0.9), run("stochca", 0.4)]).method == "stochca"


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


COMPARE = Compare(confidence=0.95, reference="finetune", analysed=["finetune"])
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
    decision = decide(contender([], 2, NOTHING), contender(["blue"], 1, seen), prepared, COMPARE, "accuracy")
    assert (decision.test_images, decision.left_out) == (60, 3)
    assert decision.difference is not None
    assert decision.difference.mean == pytest.approx(17 / 60)
    assert "on 60 images; 3 that a model had seen in training or validation were left out;" in decision.reason

    everything = hashes_of(test).ravel()
    decision = decide(
        contender([], 2, NOTHING), contender(["blue"], 1, everything), prepared, COMPARE, "accuracy"
    )
    assert not decision.promoted
    assert "can't be compared" in decision.reason


def test_test_images_of_groups_that_the_champion_was_trained_on_are_left_out(
    contender: Callable[..., Contender], tmp_path: Path
) -> None:
    """Patients that came again: one keeps the image that was seen, one has lost it, one has another name."""
    old = {"blue/train-00": "kept", "green/train-00": "gone", "blue/val-00": "named"}
    before = write_prepared(tmp_path / "before", items(), groups=old)
    write_seen(tmp_path / "seen.npy", before.images("train"), before.images("val"))
    new = {"blue/test-00": "kept", "blue/test-01": "kept", "green/test-00": "gone", "blue/test-02": "renamed"}
    today = write_prepared(
        tmp_path / "today",
        [item for item in items() if item[0] != "green/train-00"],
        groups={**old, **new, "blue/val-00": "renamed", "red/test-00": "new", "red/test-01": "new"},
    )
    champion = contender(["blue"], 1, read_seen(tmp_path / "seen.npy"))
    decision = decide(contender([], 2, NOTHING), champion, today, COMPARE, "accuracy")
    assert (decision.test_images, decision.left_out) == (60 - len(new), len(new))
    assert decision.difference is not None
    assert decision.difference.mean == pytest.approx((17 - 3) / (60 - 4))
    told = "; 4 that a model had seen (or others of their group) in training or validation were left out;"
    assert told in decision.reason


def test_an_empty_slice_tells_of_no_group(tmp_path: Path) -> None:
    """Of ten patients each has one; of those tested none was seen, but for those slices themselves."""
    rows = [
        Row(
            picture("white", "empty" if place == 2 else f"{patient} {place}"),
            label=patient % 2,
            id=f"{patient}/{place}",
            split="test" if patient < 4 else "train",
            group=f"patient {patient}",
        )
        for patient in range(10)
        for place in range(3)
    ]
    prepared = write_prepared_folder(tmp_path / "today", ["red", "green"], rows, dataset="colours")
    write_seen(tmp_path / "seen.npy", prepared.images("train"))
    seen = read_seen(tmp_path / "seen.npy")
    assert group_was_seen(prepared, "test", seen).tolist() == 4 * [False, False, True]


def test_many_images_of_one_group_decide_nothing(contender: Callable[..., Contender], tmp_path: Path) -> None:
    """The champion is wrong on all blue ones; in a second set, these show one and the same thing."""
    groups = {id: "one" for id, *_ in items() if id.startswith("blue/test")}
    for folder in ("apart", "together"):
        together = groups if folder == "together" else {}
        prepared = write_prepared(tmp_path / folder, items(), groups=together)
        champion = contender(["blue"], 1, NOTHING)
        decision = decide(contender([], 2, NOTHING), champion, prepared, COMPARE, "accuracy")
        assert decision.promoted == (folder == "apart")
    assert f"on 60 images of {60 - len(groups) + 1} groups;" in decision.reason


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
    decision = decide(contender([], 2, NOTHING), champion, prepared, COMPARE, "accuracy")
    assert decision.difference is not None
    assert decision.difference.mean == pytest.approx(TEST_IMAGES["white"] / 60)


@pytest.mark.parametrize(
    ("classes", "dataset", "sentence"),
    [
        (
            ("rose", "tulip", "lily"),
            "image_folder",
            "tells lily, rose, tulip apart, and this project blue, gr",
        ),
        (("red", "green", "blue", "rose"), "image_folder", "apart, and this project blue, green, red, ...;"),
        (("red", "green", "blue", "white"), "openmoji", "was trained on openmoji, and this project's images"),
        (("red", "green", "blue"), "image_folder", None),
        (("red", "green", "blue", "white", "rose"), "image_folder", None),
    ],
)
def test_the_champion_of_another_project_is_told_from_an_older_one(
    classes: tuple[str, ...],
    dataset: str,
    sentence: str | None,
    contender: Callable[..., Contender],
    tmp_path: Path,
) -> None:
    prepared = write_prepared(tmp_path / "today", items())
    prepared.manifest["dataset"] = "image_folder"
    champion = contender([], 1, NOTHING)
    champion.model.card["classes"] = list(classes)
    champion.version.tags["dataset"] = dataset
    if sentence is None:
        check_same_task("stochca", champion, prepared)
    else:
        with pytest.raises(UserError, match=sentence) as error:
            check_same_task("stochca", champion, prepared)
        assert str(error.value).startswith(
            "the registered model 'stochca' is another project's: its champion"
        )
        assert str(error.value).endswith("set promotion.model in params.yaml to a name of this project's own")


def test_a_champion_that_has_seen_other_images_is_another_projects(
    contender: Callable[..., Contender], tmp_path: Path
) -> None:
    """Two projects may call their classes the same, such as good and bad."""
    ours = write_prepared(tmp_path / "ours", items())
    others = [(f"their {id}", label, split) for id, label, split in items()]
    theirs = write_prepared(tmp_path / "theirs", others)
    champion = contender([], 1, hashes_of(theirs.images("train")).ravel())
    with pytest.raises(UserError, match=r"is another project's: .* has seen none of the images that are"):
        check_same_task("stochca", champion, ours)
    for split in ("train", "test"):  # splits may have been drawn anew
        check_same_task("stochca", contender([], 1, hashes_of(ours.images(split))[:1].ravel()), ours)


@pytest.mark.parametrize(
    ("image_size", "resize", "fits"),
    [(32, None, True), (16, None, True), (64, None, False), (32, 40, False), (32, 36, True)],
)
def test_a_champion_that_needs_larger_images_is_not_shown_small_ones(
    image_size: int, resize: int | None, fits: bool, contender: Callable[..., Contender]
) -> None:
    """Images for 32 pixels are stored with a short side of 37."""
    champion = contender([], 1, NOTHING)
    champion.model.card.update(image_size=image_size, resize=resize)
    if fits:
        check_sizes(champion, CARD)
    else:
        with pytest.raises(UserError, match=rf"sees {image_size} pixels and needs .*prepared with 37 at mo"):
            check_sizes(champion, CARD)


def test_another_projects_registered_model_is_left_as_it_is(params: Params) -> None:
    promote(params)
    client = MlflowClient()
    client.set_model_version_tag("stochca", "1", "dataset", "roses")
    before = aliases()
    with pytest.raises(UserError, match="was trained on roses, and this project's images are colours; set"):
        promote(with_promotion(params, "finetune"))
    assert aliases() == before
    assert len(client.search_model_versions("name = 'stochca'")) == 1


def test_a_champion_that_is_gone_does_not_keep_the_new_model_out(params: Params) -> None:
    promote(with_promotion(params, "finetune"))
    client = MlflowClient()
    files = Path(client.get_model_version_download_uri("stochca", "1").removeprefix("file://"))
    away = files.rename(files.with_name("away"))
    try:
        client.set_model_version_tag("stochca", "1", "dataset", "roses")
        with pytest.raises(UserError, match="was trained on roses, and this project's images are colours"):
            promote(params)
        assert aliases() == {"champion": "1"}
        client.set_model_version_tag("stochca", "1", "dataset", "colours")
        for _ in range(2):  # nights
            with pytest.raises(UserError, match="with: the files of models:/stochca/1 are gone") as error:
                promote(params)
    finally:
        away.rename(files)
    assert str(error.value).endswith(
        "; bring them back; or make version 2 (stochca, seed 0) the champion without a comparison: stochca "
        "rollback --to 2"
    )
    assert aliases() == {"champion": "1", "challenger": "2"}
    assert not is_decided(params)
    rollback("stochca", "2")
    assert aliases() == {"champion": "2", "previous": "1"}


def test_who_has_learned_from_other_levels_of_grey_is_named(
    contender: Callable[..., Contender], tmp_path: Path
) -> None:
    prepared = write_prepared(tmp_path / "today", items())
    champion, challenger = contender(["blue"], 1, NOTHING), contender([], 2, NOTHING)
    assert "grey" not in decide(challenger, champion, prepared, COMPARE, "accuracy").reason
    champion.model.card["levels"] = {"whole numbers": [0, 4095]}
    reason = decide(challenger, champion, prepared, COMPARE, "accuracy").reason
    assert f"{champion.title} has learned from images with other levels of grey than these" in reason
    assert reason.count("grey") == 1


def test_the_metric_that_selects_decides(contender: Callable[..., Contender], tmp_path: Path) -> None:
    """Three in sixty images are white, seventeen are blue: of classes that count the same, one is one."""
    prepared = write_prepared(tmp_path / "today", items())
    white, blue = contender(["white"], 2, NOTHING), contender(["blue"], 1, NOTHING)
    by_accuracy = decide(white, blue, prepared, COMPARE, "accuracy")
    assert by_accuracy.promoted
    assert by_accuracy.difference is not None
    assert by_accuracy.difference.mean == pytest.approx(14 / 60)
    balanced = decide(white, blue, prepared, COMPARE, "balanced_accuracy")
    assert not balanced.promoted
    assert balanced.difference is not None
    assert balanced.difference.mean == pytest.approx(0)
    assert "+0.0 points of test balanced accuracy" in balanced.reason.replace("-", "+")
    by_loss = decide(white, blue, prepared, COMPARE, "log_loss")
    assert by_loss.promoted  # it has the smaller one
    assert "less test log loss" in by_loss.reason
    # The probability of a class that is never predicted still tells it from others, or nothing does.
    assert decide(white, blue, prepared, COMPARE, "auroc").difference is not None


def test_the_auroc_of_one_class_is_none(contender: Callable[..., Contender], tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path / "today", items())
    test = prepared.images("test")
    coloured = np.unique(hashes_of(test)[test.labels > 0].ravel())
    decision = decide(contender([], 2, coloured), contender(["blue"], 1, NOTHING), prepared, COMPARE, "auroc")
    assert not decision.promoted
    assert "no test image of blue, green, white is left; 40 that a model had seen" in decision.reason


def test_classes_that_count_the_same_are_compared_all_or_none(
    contender: Callable[..., Contender], tmp_path: Path
) -> None:
    """The champion has seen every white test image, of which the challenger would be wrong."""
    prepared = write_prepared(tmp_path / "today", items())
    test = prepared.images("test")
    white = np.unique(hashes_of(test)[test.labels == 3].ravel())
    challenger, champion = contender(["white"], 2, NOTHING), contender(["blue"], 1, white)
    for metric in ("balanced_accuracy", "macro_f1", "auroc"):
        decision = decide(challenger, champion, prepared, COMPARE, metric)
        assert not decision.promoted
        assert "can't be compared with the champion" in decision.reason
        assert "no test image of white is left; 3 that a model had seen" in decision.reason
    decision = decide(challenger, champion, prepared, COMPARE, "accuracy")
    assert decision.promoted
    assert "were left out; no test image of white is left; it is the new champion" in decision.reason


def test_the_same_weights_from_another_run_change_nothing(
    contender: Callable[..., Contender], tmp_path: Path
) -> None:
    prepared = write_prepared(tmp_path / "today", items())
    challenger = contender([], 1, NOTHING)
    other: Any = SimpleNamespace(version="2", tags={})
    decision = decide(Contender(other, challenger.model, NOTHING), challenger, prepared, COMPARE, "accuracy")
    assert not decision.promoted
    assert "has the weights of the champion" in decision.reason
    champion = contender(["blue"], 2, NOTHING)  # which the challenger would be better than
    decision = decide(challenger, champion, prepared, COMPARE, "accuracy", rolled_back="3")
    assert not decision.promoted
    assert f"{challenger.title} has the weights of version 3, which was rolled back; " in decision.reason
