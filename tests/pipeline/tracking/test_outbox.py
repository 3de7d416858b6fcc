"""An outbox belongs to its run or to `stochca sync`, never to both: real processes, a real database."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import pytest
from mlflow.tracking import MlflowClient

from pipeline.tracking.outbox import UNSYNCED, Outbox
from pipeline.tracking.tracked_run import tracked_run
from pipeline.tracking.unsynced import sync
from tests.imports import ROOT

# A run that is just putting its model into its outbox.
RUN = """
import signal
from pathlib import Path
from pipeline.tracking.tracked_run import tracked_run
with tracked_run("trial", "a", {}, Path("id")) as run:
    (run.artifacts / "half").touch()
    (run.folder / "model").mkdir()
    print("goes on", flush=True)
    signal.pause()
"""

# Holds an outbox as `stochca sync` does while it sends.
SYNC = """
import sys, time
from pathlib import Path
from pipeline.tracking.outbox import held
with held(Path(sys.argv[1])):
    print("sends", flush=True)
    time.sleep(float(sys.argv[2]))
    Path("sent").touch()
"""


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@contextmanager
def process(program: str, says: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A Python program that has just said so; it is killed at the end."""
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**environment, "PYTHONPATH": str(ROOT)},
    ) as started:
        assert started.stdout is not None
        try:
            assert started.stdout.readline() == f"{says}\n"
            yield started
        finally:
            started.kill()


def ended_run(name: str) -> Outbox:
    with tracked_run("trial", name, {}, Path(f"id-{name}")) as outbox:
        pass
    return outbox


def status(run_id: str) -> str:
    return str(MlflowClient().get_run(run_id).info.status)


def test_sync_leaves_a_run_alone_that_is_going_on_and_sends_what_a_killed_one_left() -> None:
    other = ended_run("b")
    other.add_params({"seed": 3})
    with process(RUN, "goes on") as run:
        run_id = Path("id").read_text()
        first, second = sync()
        assert first.startswith(f"a-{run_id[:8]}: not sent, for its run is still going on")
        assert second.startswith(f"b-{other.run_id[:8]}: sent ")
        (folder,) = UNSYNCED.iterdir()
        assert {path.name for path in folder.iterdir()} >= {"artifacts", "model"}
        assert MlflowClient().list_artifacts(run_id) == []
        run.kill()
        run.wait()
        (line,) = sync()
    assert line.startswith(f"a-{run_id[:8]}: sent ")
    assert line.endswith("; the run was killed before it could end")
    assert [file.path for file in MlflowClient().list_artifacts(run_id)] == ["half"]
    assert not folder.exists()


def test_a_run_goes_on_as_soon_as_sync_has_sent_what_it_left(caplog: pytest.LogCaptureFixture) -> None:
    first = ended_run("a")
    with process(SYNC, "sends", first.folder.name, "2"), tracked_run("trial", "a", {}, Path("id-a")) as run:
        assert Path("sent").exists()
        assert status(run.run_id) == "RUNNING"
    assert run.run_id == first.run_id
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == f"waiting for stochca sync, which is sending work/unsynced/a-{run.run_id[:8]}"
    assert list(Path("work").iterdir()) == []


def test_a_signal_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()

    first = ended_run("a")
    monkeypatch.setattr(logging.getLogger("pipeline.tracking.run_lifecycle"), "warning", interrupted)
    with (
        process(SYNC, "sends", first.folder.name, "60"),
        pytest.raises(KeyboardInterrupt),
        tracked_run("trial", "a", {}, Path("id-a")),
    ):
        pass
    assert status(first.run_id) == "FINISHED"  # it was not begun again
