"""A run that pauses at every rung against one that never does."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.images.prepared import load_prepared
from pipeline.search.task import Task, plan
from pipeline.search.trial import SeedRun, Trial
from pipeline.training.inputs import make_inputs
from stochca.backbones.loading import load_backbone
from stochca.data.preprocessing import Preprocessing
from stochca.training.callbacks import Callback, EvalEvent
from stochca.training.fit import fit
from stochca.training.inputs import Inputs
from tests.pipeline.search.small_project import STEPS, write_project

VALUES = {"prob": 0.5}
RUNGS = [2, 4, 8]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("project") / "small"
    params = write_project(folder, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return plan(params)


class Looks(Callback):
    def __init__(self) -> None:
        self.accuracies: dict[int, float] = {}

    def on_eval(self, event: EvalEvent) -> None:
        self.accuracies[event.step] = event.accuracy


def seed_run(task: Task, folder: Path, seed: int) -> SeedRun:
    prepared = load_prepared(task.data.project / "data" / "prepared")
    inputs = partial(
        make_inputs,
        task.data.project / "data" / "backbone",
        prepared.classes,
        prepared.images("train"),
        prepared.images("val"),
        method=task.method(VALUES),
        settings=task.settings(VALUES),
        seed=seed,
    )
    return SeedRun(folder, inputs, torch.device("cpu"))


def uninterrupted(task: Task, seed: int) -> tuple[float, dict[int, float]]:
    """The accuracy of the selected weights, and of every evaluation."""
    prepared = load_prepared(task.data.project / "data" / "prepared")
    card, looks = task.card, Looks()
    fitted = fit(
        Inputs(
            load_backbone(task.data.project / "data" / "backbone", num_classes=3, drop_path=0.0, seed=seed),
            prepared.images("train"),
            prepared.images("val"),
            method=task.method(VALUES),
            settings=dataclasses.replace(task.training, workers=0),
            preprocessing=Preprocessing(card.image_size, card.mean, card.std, card.interpolation),
            seed=seed,
        ),
        callbacks=[looks],
        device=torch.device("cpu"),
    )
    assert fitted.validation is not None
    return fitted.validation.accuracy, looks.accuracies


def test_pausing_at_rungs_changes_nothing(task: Task, tmp_path: Path) -> None:
    assert task.rungs == RUNGS
    for seed in (0, 1):
        selected, looks = uninterrupted(task, seed)
        run = seed_run(task, tmp_path / str(seed), seed)
        reached = [run.advance(rung)["value"] for rung in RUNGS]
        so_far = [max(accuracy for step, accuracy in looks.items() if step <= rung) for rung in RUNGS]
        assert reached[:-1] == so_far[:-1]
        assert reached[-1] == selected
        assert len(set(looks.values())) > 1  # otherwise equality would say nothing


def test_what_is_on_record_is_not_trained_again(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = seed_run(task, tmp_path, 0)
    reached = [run.advance(rung) for rung in RUNGS]
    run.discard_checkpoints()
    assert list(tmp_path.glob("*.safetensors")) == []
    monkeypatch.setattr("pipeline.search.trial.fit", None)
    assert [run.advance(rung) for rung in RUNGS] == reached


@pytest.mark.parametrize("lost", [2, 4])
def test_killed_between_the_checkpoint_and_its_record(task: Task, tmp_path: Path, lost: int) -> None:
    run = seed_run(task, tmp_path, 0)
    before = [run.advance(rung)["value"] for rung in RUNGS if rung <= lost]
    (tmp_path / f"step-{lost}.json").unlink()
    assert run.advance(lost)["value"] == before[-1]
    assert run.advance(STEPS)["value"] == uninterrupted(task, 0)[0]


def test_a_pause_costs_no_steps(task: Task, tmp_path: Path) -> None:
    """Steps are counted by the log of their losses: each once."""
    import json

    run = seed_run(task, tmp_path, 0)
    for rung in RUNGS:
        assert run.advance(rung)["seconds"] > 0
    events: list[dict[str, Any]] = [
        json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()
    ]
    assert [event["step"] for event in events if event["event"] == "step"] == list(range(1, STEPS + 1))


def test_a_trial_that_patience_ends_reaches_its_last_rungs_at_once(task: Task, tmp_path: Path) -> None:
    impatient = dataclasses.replace(task, training=dataclasses.replace(task.training, patience=2))
    selected, looks = uninterrupted(impatient, 0)
    assert max(looks) < STEPS  # otherwise patience ended nothing
    run = seed_run(impatient, tmp_path, 0)
    reached = [run.advance(rung)["value"] for rung in RUNGS]
    assert reached == [max(look for step, look in looks.items() if step <= rung) for rung in RUNGS]
    assert reached[-1] == selected


def test_checkpoints_of_another_precision_are_not_gone_on_with(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a search begins on a machine without bf16, and is restarted on one that has it."""

    class Alone(Trial):
        trial_id = "1"

        def __init__(self) -> None:
            """Without Ray."""

    def folders(bf16: bool) -> list[str]:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": bf16})
        trial = Alone()
        monkeypatch.chdir(task.data.project)
        automatic = dataclasses.replace(task.training, precision="auto")
        trial.setup({**VALUES}, dataclasses.replace(task, training=automatic), [])
        return [run.folder.name for run in trial.runs]

    assert folders(False) == [f"seed-{seed}-fp32" for seed in task.tune.seeds]
    assert folders(True) == [f"seed-{seed}-bf16" for seed in task.tune.seeds]
