"""Against a real MLflow database; nothing is mocked."""

import os
import signal
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from pipeline.tracking import MlflowCallback, connect, flatten, tracked_run
from stochca.callbacks import EvalEvent, StepEvent


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def status(run_id: str) -> str:
    return str(MlflowClient().get_run(run_id).info.status)


def test_runs_are_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tracked_run("trial", "a", {"stage": "x"}, tmp_path / "id") as run_id:
        uri = MlflowClient().get_run(run_id).info.artifact_uri
    assert uri.startswith(tmp_path.as_uri())
    monkeypatch.chdir("/")
    run = MlflowClient().get_run(run_id)
    assert (run.info.run_name, run.info.status, run.data.tags["stage"]) == ("a", "FINISHED", "x")


def test_a_failed_run_says_so_and_is_continued_by_the_next(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), tracked_run("trial", "a", {}, tmp_path / "id") as first:
        raise RuntimeError
    assert status(first) == "FAILED"
    with tracked_run("trial", "a", {}, tmp_path / "id") as second:
        assert status(second) == "RUNNING"
    assert second == first
    assert status(first) == "FINISHED"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_as_killed(number: int, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def train() -> None:
        with tracked_run("trial", "a", {}, tmp_path / "id"):
            os.kill(os.getpid(), number)
            signal.pause()

    with pytest.raises((SystemExit, KeyboardInterrupt)):
        train()
    assert status((tmp_path / "id").read_text()) == "KILLED"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_that_was_deleted_is_not_continued(tmp_path: Path) -> None:
    with tracked_run("trial", "a", {}, tmp_path / "id") as first:
        pass
    MlflowClient().delete_run(first)
    with tracked_run("trial", "a", {}, tmp_path / "id") as second:
        pass
    assert second != first


def test_the_experiment_is_made_once() -> None:
    assert connect("trial") == connect("trial")


def step(number: int) -> StepEvent:
    return StepEvent(step=number, steps=9, loss=1 / number, lr=0.1, images_per_second=5.0)


def test_steps_that_are_repeated_after_a_kill_are_logged_once(tmp_path: Path) -> None:
    with tracked_run("trial", "a", {}, tmp_path / "id") as run_id:
        for steps in (range(1, 6), range(4, 8)):  # killed after 5, continued from the checkpoint at 3
            callback = MlflowCallback(run_id)
            for number in steps:
                callback.on_step(step(number))
                if number % 3 == 0 or number == 5:
                    callback.on_eval(EvalEvent(number, 9, loss=2.0, accuracy=0.5, is_best=True))
            callback.on_end()
    client = MlflowClient()
    losses = client.get_metric_history(run_id, "train_loss")
    assert sorted(point.step for point in losses) == [1, 2, 3, 4, 5, 6, 7]
    assert all(point.value == pytest.approx(1 / point.step) for point in losses)
    assert sorted(p.step for p in client.get_metric_history(run_id, "validation_accuracy")) == [3, 5, 6]


def test_nested_settings_have_dotted_names() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": [3]}) == {"a.b": 1, "a.c.d": 2, "e": [3]}
