import dataclasses
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.params import load_params
from pipeline.tracking.run_folder import PUBLISHED, RunFolder
from pipeline.training import digests
from pipeline.training.interrupted import DECIDES, why_anew, why_timed_anew
from pipeline.training.job import Job, all_that_decides, plan, work_folder
from stochca.compute.checkpoint import CHECKPOINT
from tests.pipeline.backbone_card import backbone_card

JOB = plan(load_params(), "finetune", "all", 0)


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def begin(
    job: Job = JOB, *, images: str = "some", code: str = "as it is", classes: Sequence[str] = ("ant", "bee")
) -> str | None:
    """As a training does that is interrupted after its first checkpoint; what it says."""
    decides: dict[str, Any] = all_that_decides(
        job, job.training.timetable(64), backbone_card().to_dict(), images, "fp32", "cpu", classes=classes
    )
    decides["code"] = code
    folder = work_folder(job, decides)
    folder.mkdir(parents=True, exist_ok=True)
    said = why_anew(folder, decides)
    (folder / CHECKPOINT).touch()
    return said


def with_training(**settings: Any) -> Job:
    return dataclasses.replace(JOB, training=dataclasses.replace(JOB.training, **settings))


def test_what_is_gone_on_with_says_nothing() -> None:
    assert begin() is None
    assert begin() is None
    assert begin(with_training(workers=3, checkpoints=9)) is None  # which change no result


def test_what_changed_is_named() -> None:
    begin()
    lr = with_training(lr=0.5)
    assert begin(lr) == "starts over: since it was interrupted, training.lr changed"
    assert begin(lr, images="others") == "starts over: since it was interrupted, the images changed"
    said = begin(with_training(lr=0.25), images="others", code="new")
    assert said == "starts over: since it was interrupted, the code, training.lr changed"
    said = begin(with_training(lr=0.25), images="others", code="new", classes=["ant", "fly"])
    assert said == "starts over: since it was interrupted, the classes changed"


def test_other_extensions_may_define_the_same_names() -> None:
    begin(dataclasses.replace(JOB, extensions=["penalty_v1"]))
    said = begin(dataclasses.replace(JOB, extensions=["penalty_v2"]))
    assert said == "starts over: since it was interrupted, extensions changed"


def test_what_a_power_cut_has_left_of_another_is_passed_by() -> None:
    begin()
    (file,) = Path("work", "runs").glob(f"*/{DECIDES}")
    file.write_text("")
    assert begin(with_training(lr=0.5)) is None


def test_a_library_of_another_version_computes_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    begin()
    installed = metadata.version
    monkeypatch.setattr(digests, "version", lambda name: "99.0" if name == "timm" else installed(name))
    assert begin() == "starts over: since it was interrupted, the version of timm changed"


def test_only_trainings_of_the_same_name_that_were_interrupted_count() -> None:
    begin()
    assert begin(dataclasses.replace(JOB, seed=1)) is None
    assert begin(dataclasses.replace(JOB, method_name="fine")) is None
    for checkpoint in Path("work", "runs").glob(f"*/{CHECKPOINT}"):
        RunFolder.begin(checkpoint.parent, "trial", "a").end("FINISHED")
    assert begin(with_training(lr=0.5)) is None


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({}, None),
        ({"git_commit": "another"}, None),
        ({"training.workers": "8"}, "training.workers changed"),
        ({"num_workers": "2", "device": "another"}, "workers.num_workers, device changed"),
    ],
)
def test_a_finished_training_is_not_gone_on_with_where_it_would_take_another_time(
    now: dict[str, str], said: str | None
) -> None:
    tags = {"training.workers": "0", "num_workers": "1", "device": "a processor", "git_commit": "one"}
    folder = Path("work", "runs", "finetune-all-0-digest")
    run = RunFolder.begin(folder, "trial", "a", tags)
    (folder / CHECKPOINT).touch()
    assert why_timed_anew(folder, {**tags, **now}) is None  # interrupted, it goes on
    run.end("FINISHED")
    (folder / PUBLISHED).touch()
    found = why_timed_anew(folder, {**tags, **now})
    assert found == (said and f"had finished before, and starts over to be timed: since then, {said}")
    assert (folder / CHECKPOINT).exists() == (said is None)
    assert why_timed_anew(folder, {**tags, **now}) is None


def test_another_mark_may_be_a_pattern() -> None:
    """Of checkpoints that are folders, numbered by their steps, as those of language models."""

    def training(digest: str, **decides: Any) -> str | None:
        folder = Path("work", "runs", f"language-lora-0-{digest * 16}")
        said = why_anew(folder, decides, mark="checkpoints/checkpoint-*/whole")
        (folder / "checkpoints" / "checkpoint-9" / "whole").mkdir(parents=True, exist_ok=True)
        return said

    assert training("0", method={"rank": 8}, examples="some") is None
    assert training("0", method={"rank": 8}, examples="some") is None  # it goes on
    said = training("1", method={"rank": 4}, examples="others")
    assert said == "starts over: since it was interrupted, method.rank, the examples changed"


def test_a_search_says_so_too() -> None:
    """It has no checkpoint of its own: what decides it stands there as long as it has not come to its end."""

    def search(digest: str, **decides: Any) -> str | None:
        return why_anew(Path("work", "tune", digest * 16), decides, mark=DECIDES)

    assert search("0", tune={"prob": [0.0, 0.1]}, code="as it is") is None
    assert search("0", tune={"prob": [0.0, 0.1]}, code="as it is") is None  # it goes on
    said = search("1", tune={"prob": [0.0, 0.2]}, code="as it is")
    assert said == "starts over: since it was interrupted, tune.prob changed"
