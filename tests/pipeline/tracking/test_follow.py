"""Real processes and a real database; nothing is mocked."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from pipeline.runtime.paths import RUNS
from pipeline.runtime.signals import UnwindingSignals
from pipeline.tracking.follow import Follower
from pipeline.tracking.server import connect
from stochca.errors import UserError
from tests.imports import ROOT
from tests.pipeline.mlflow_server import Server
from tests.pipeline.tracking.followed import followed, wait_until_said
from tests.pipeline.tracking.stalling import Stalling, interrupt_when

FOLDER = RUNS / "a-1"
LOG = [
    '{"event": "step", "step": 1, "loss": 0.5, "lr": 0.1, "images_per_second": 2.0, "time": 1}\n',
    '{"event": "eval", "step": 1, "loss": 0.4, "accuracy": 0.5, "time": 2}\n',
]
CURVES = "step,train_loss,lr,validation_loss,validation_accuracy\n1,0.5,0.1,,\n2,0.4,0.1,0.3,0.5\n"


def only_run() -> str:
    experiment = connect("trial")
    (run,) = MlflowClient().search_runs([experiment])
    return str(run.info.run_id)


def status(run_id: str) -> str:
    return str(MlflowClient().get_run(run_id).info.status)


def losses(run_id: str) -> dict[int, float]:
    return {point.step: point.value for point in MlflowClient().get_metric_history(run_id, "loss")}


def is_gone(process: int) -> bool:
    """Whether no process has this number, or one that has ended."""
    with suppress(FileNotFoundError):
        return " Z " in Path(f"/proc/{process}/stat").read_text()
    return True


def test_mlflow_has_what_the_run_said(tmp_path: Path) -> None:
    with Follower() as follower:
        process = follower.process
        with follower.follows(FOLDER, "trial", "a", {"stage": "x"}) as run:
            run.add_params({"lr": 0.1, "head": None})
            run.add_tags({"note": "here"})
            for step in range(1, 6):
                run.log({"loss": 1 / step}, step)
            run.log({"test_accuracy": 0.75})
            (FOLDER / "log.jsonl").write_text("".join(LOG))
            results = run.artifacts / "results"  # of a training, which are drawn
            results.mkdir()
            (results / "run.json").write_text('{"classes": ["cat", "dog"]}')
            (results / "curves.csv").write_text(CURVES)
            pd.DataFrame({"label": [0, 1], "prediction": [1, 1]}).to_parquet(results / "predictions.parquet")
            trial = run.child("1", "trial 1", {"trial": "1"})
            trial.log({"accuracy": 0.5}, 10)
            run_id = run.run_id
            connect("trial")  # only here: this process has told MLflow nothing
            while len(losses(run_id)) < 5:  # while it goes on
                time.sleep(0.1)
            assert status(run_id) == "RUNNING"
    assert process.poll() is not None
    found = MlflowClient().get_run(run_id)
    assert (found.info.run_name, found.info.status) == ("a", "FINISHED")
    assert found.data.params == {"lr": "0.1", "head": "None"}
    assert (found.data.tags["stage"], found.data.tags["note"]) == ("x", "here")
    assert losses(run_id) == pytest.approx({step: 1 / step for step in range(1, 6)})
    assert found.data.metrics == pytest.approx(
        {
            "loss": 0.2, "test_accuracy": 0.75, "train_loss": 0.5, "lr": 0.1, "images_per_second": 2.0,
            "validation_loss": 0.4, "validation_accuracy": 0.5,
        }
    )  # fmt: skip
    pictures = MlflowClient().list_artifacts(run_id, "pictures")
    assert {file.path for file in pictures} == {"pictures/curves.png", "pictures/confusion_matrix.png"}
    files = {file.path for file in MlflowClient().list_artifacts(run_id, "results")}
    assert files == {"results/run.json", "results/curves.csv", "results/predictions.parquet"}
    nested = [run for run in MlflowClient().search_runs([connect("trial")]) if run.info.run_id != run_id]
    assert [run.data.tags["mlflow.parentRunId"] for run in nested] == [run_id]
    assert [(run.info.status, run.data.metrics) for run in nested] == [("FINISHED", {"accuracy": 0.5})]
    assert [path.name for path in RUNS.parent.rglob("*")] == ["runs"]  # nothing waits, no lock is left


@pytest.mark.parametrize(
    ("failure", "expected"), [(RuntimeError, "FAILED"), (signal.SIGTERM, "KILLED"), (signal.SIGINT, "KILLED")]
)
@pytest.mark.slow
def test_the_run_ends_as_its_stage_does_and_the_next_goes_on(failure: Any, expected: str) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def train() -> None:
        with followed(FOLDER, "trial", "a") as run:
            run.add_params({"a": 1, "b": "x"})
            run.log({"loss": 1.0}, 1)
            (FOLDER / "checkpoint").touch()
            if not isinstance(failure, signal.Signals):
                raise failure
            try:
                os.kill(os.getpid(), failure)
                time.sleep(20)  # interrupted at once
            finally:
                os.kill(os.getpid(), failure)  # a second one does not disturb the unwinding
                if failure == signal.SIGINT:  # workers end too, which may be noticed first
                    raise RuntimeError("a worker exited unexpectedly")

    with pytest.raises((RuntimeError, SystemExit, KeyboardInterrupt)) as error:
        train()
    if isinstance(failure, signal.Signals):
        assert error.type is KeyboardInterrupt or error.value.args == (143,)
    assert signal.getsignal(signal.SIGTERM) is before
    run_id = only_run()
    assert (status(run_id), losses(run_id)) == (expected, {1: 1.0})
    with followed(FOLDER, "trial", "a") as run:
        assert status(run_id) == "RUNNING"
        assert (FOLDER / "checkpoint").exists()
        run.add_params({"a": 2, "c": None})  # MLflow refuses changes
    assert (only_run(), status(run_id)) == (run_id, "FINISHED")
    assert MlflowClient().get_run(run_id).data.params == {"a": "1", "b": "x", "c": "None"}
    with followed(RUNS / "b-1", "trial", "b"):
        assert (FOLDER / "checkpoint").exists()  # DVC may not have recorded the one before yet
    assert not FOLDER.exists()


def test_ctrl_c_reaches_a_run_that_started_with_it_ignored() -> None:
    """As shells start jobs in the background."""

    def train() -> None:
        with followed(FOLDER, "trial", "a"):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(20)

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt):
            train()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert status(only_run()) == "KILLED"


@pytest.mark.slow
def test_a_run_that_was_deleted_is_not_continued() -> None:
    def fail() -> None:
        with followed(FOLDER, "trial", "a"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    first = only_run()
    MlflowClient().delete_run(first)
    with followed(FOLDER, "trial", "a") as second:
        assert second.run_id != first
    assert status(only_run()) == "FINISHED"


# A stage that is killed, fails or ends; a process that it has started, as those that load images are,
# outlives it.
STAGE = """
import os, resource, sys, time
from pathlib import Path
from pipeline.tracking.follow import Follower
with Follower() as follower, follower.follows(Path(sys.argv[1]), "trial", "a") as run:
    for step in range(1, 4):
        run.log({"loss": 1 / step}, step)
    if not os.fork():
        time.sleep(60)
    print(follower.process.pid, flush=True)
    time.sleep(float(sys.argv[2]))
    if sys.argv[3:]:  # nothing can be written any more, not even that it fails
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        raise OSError
"""


@contextmanager
def stage(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", STAGE, str(FOLDER), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("fails", [(), ("finds the disk full",)])
def test_a_stage_ends_though_a_process_that_it_has_started_does_not(fails: tuple[str, ...]) -> None:
    with stage("0", *fails) as started:
        assert started.stdout is not None
        process = int(started.stdout.readline())
        assert started.wait(20) == len(fails)
        assert is_gone(process)


@pytest.mark.slow
def test_what_a_killed_stage_has_said_arrives_and_the_run_goes_on() -> None:
    with stage("60") as started:
        assert started.stdout is not None
        process = int(started.stdout.readline())
        started.kill()
        while not is_gone(process):
            time.sleep(0.05)
        run_id = only_run()
        assert (status(run_id), len(losses(run_id))) == ("RUNNING", 3)
    with stage("60") as started:  # and goes on at once
        assert started.stdout is not None
        process = int(started.stdout.readline())
        started.kill()
        with followed(FOLDER, "trial", "a") as run:
            assert is_gone(process), "two processes told MLflow about the same run"
            assert run.run_id == run_id
            run.log({"loss": 9.0}, 3)  # repeated after the checkpoint
            run.log({"loss": 1 / 4}, 4)
    assert losses(run_id) == pytest.approx({step: 1 / step for step in range(1, 5)})
    assert (only_run(), status(run_id)) == (run_id, "FINISHED")


@pytest.mark.slow
def test_a_training_that_begins_its_log_again_is_logged_once() -> None:
    """Killed after step 5, continued from the checkpoint at 3, whose log is cut there."""

    def lines(steps: range, when: int) -> str:
        return "".join(LOG[0].replace('"step": 1', f'"step": {step}') for step in steps)

    with followed(FOLDER, "trial", "a") as run:
        connect("trial")
        (FOLDER / "log.jsonl").write_text(lines(range(1, 6), 1))
        while len(MlflowClient().get_metric_history(run.run_id, "train_loss")) < 5:
            time.sleep(0.1)
        (FOLDER / "log.jsonl").write_text(lines(range(1, 4), 1))
        time.sleep(3)
        with (FOLDER / "log.jsonl").open("a") as log:
            log.write(lines(range(4, 8), 2) + '{"event": "step", "st')
        run_id = run.run_id
    history = MlflowClient().get_metric_history(run_id, "train_loss")
    assert sorted(point.step for point in history) == list(range(1, 8))


class InterruptedAtLast(Follower):
    """Ctrl-C while MLflow gets the last."""

    def _finish(self, signals: UnwindingSignals) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        super()._finish(signals)


def test_a_follower_that_was_killed_leaves_the_run_to_sync(caplog: pytest.LogCaptureFixture) -> None:
    """And Ctrl-C then makes no failure of a stage whose results are in place."""
    with InterruptedAtLast() as follower, follower.follows(FOLDER, "trial", "a") as run:
        follower.process.kill()
        follower.process.wait()
        run.log({"loss": 1.0}, 1)
    assert "send it with: stochca sync" in caplog.text
    assert FOLDER.exists()


def test_mistakes_reach_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "foo://bar")
    with (
        pytest.raises(UserError, match="MLflow knows no such kind of address"),
        followed(FOLDER, "trial", "a"),
    ):
        pytest.fail("it was entered")
    assert not FOLDER.exists()


def test_a_stage_that_fails_before_its_run_leaves_no_trace(tmp_path: Path) -> None:
    started = time.monotonic()
    follower = Follower()

    def train() -> None:
        with follower:
            raise UserError("a mistake")

    with pytest.raises(UserError):
        train()
    assert time.monotonic() - started < 2  # it did not wait for MLflow
    assert is_gone(follower.process.pid)
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_ctrl_c_at_a_server_that_does_not_answer_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    stalling = Stalling(None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stalling.uri)
    times = interrupt_when(stalling.has_stalled)
    with pytest.raises(KeyboardInterrupt), followed(FOLDER, "trial", "a"):
        pytest.fail("it was entered")
    assert time.monotonic() - times[0] < 4
    assert list(RUNS.parent.rglob("*.lock")) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_server_that_comes_back_gets_what_was_waiting(
    server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    with followed(FOLDER, "trial", "a") as run:
        run.log({"loss": 1.0}, 1)
        server.kill()
        run.log({"loss": 0.5}, 2)
        said = wait_until_said(capfd, "does not take what run")
        server.start()
        said += wait_until_said(capfd, "is back; what was waiting has been sent")
        run.log({"loss": 0.25}, 3)
        run_id = run.run_id
    connect("trial")
    assert losses(run_id) == {1: 1.0, 2: 0.5, 3: 0.25}
    assert "stochca sync" not in said + capfd.readouterr().err
    assert not FOLDER.exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ctrl_c_ends_an_upload_that_goes_nowhere(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    stalling = Stalling(server, only_uploads=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stalling.uri)
    times = interrupt_when(stalling.has_stalled)

    run_ids = []

    def train() -> None:
        with followed(FOLDER, "trial", "a") as run:
            run_ids.append(run.run_id)
            (run.artifacts / "large").write_bytes(bytes(1000))
            run.log({"loss": 0.5}, 1)

    train()  # its results are in place: the stage has succeeded
    assert time.monotonic() - times[0] < 20
    assert [path.name for path in FOLDER.glob("artifacts/*")] == ["large"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    connect("trial")
    assert (status(run_ids[0]), losses(run_ids[0])) == ("FINISHED", {1: 0.5})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_training_does_not_wait_for_a_server_that_hangs(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    stalling = Stalling(server)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stalling.uri)
    with followed(FOLDER, "trial", "a") as run:
        stalling.stalls = True
        longest = 0.0
        for step in range(2000):
            started = time.monotonic()
            run.log({"loss": 1.0}, step)
            longest = max(longest, time.monotonic() - started)
            time.sleep(0.002)
        assert longest < 1
        assert stalling.has_stalled.wait(10)
        stalling.stalls = False
        run_id = run.run_id
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    connect("trial")
    history = sorted(MlflowClient().get_metric_history(run_id, "loss"), key=lambda point: point.step)
    assert [point.step for point in history] == list(range(2000))
    gaps = [after.timestamp - before.timestamp for before, after in pairwise(history)]
    assert max(gaps) < 1000  # milliseconds: when they were taken, not when they were sent
