"""Real processes and a real database; nothing is mocked."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from pipeline.tracking.courier import Courier
from pipeline.tracking.outbox import UNSYNCED
from pipeline.tracking.server import connect
from stochca.errors import UserError
from tests.imports import ROOT
from tests.pipeline.mlflow_server import Server, running

EVENTS = [
    {"event": "step", "step": 1, "loss": 0.5, "lr": 0.1},
    {"event": "eval", "step": 1, "loss": 0.4, "accuracy": 0.5},
]


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def status(run_id: str) -> str:
    return str(MlflowClient().get_run(run_id).info.status)


def losses(run_id: str) -> dict[int, float]:
    return {point.step: point.value for point in MlflowClient().get_metric_history(run_id, "loss")}


def is_gone(process: int) -> bool:
    """Whether no process has this number, or one that has ended."""
    with suppress(FileNotFoundError):
        return " Z " in Path(f"/proc/{process}/stat").read_text()
    return True


def test_mlflow_has_what_the_courier_was_told(tmp_path: Path) -> None:
    with Courier() as courier:
        process = courier._process
        with courier.tracked_run("trial", "a", {"stage": "x"}, tmp_path / "id") as run:
            run.add_params({"lr": 0.1, "head": None})
            run.add_tags({"note": "here"})
            for step in range(1, 6):
                run.add_metrics({"loss": 1 / step}, step)
                run.send()
            (run.artifacts / "results").mkdir()
            (run.artifacts / "results" / "run.json").write_text("{}")
            run.add_pictures(EVENTS, np.array([0, 1]), np.array([1, 1]), ["cat", "dog"])
            assert run.send(now=True)
            connect("trial")  # only here: this process has told MLflow nothing
            assert status(run.run_id) == "RUNNING"
    assert process.poll() is not None
    found = MlflowClient().get_run((tmp_path / "id").read_text())
    assert found.info.run_id == run.run_id
    assert (found.info.run_name, found.info.status) == ("a", "FINISHED")
    assert found.data.params == {"lr": "0.1", "head": "None"}
    assert (found.data.tags["stage"], found.data.tags["note"]) == ("x", "here")
    assert losses(run.run_id) == pytest.approx({step: 1 / step for step in range(1, 6)})
    pictures = MlflowClient().list_artifacts(run.run_id, "pictures")
    assert {file.path for file in pictures} == {"pictures/curves.png", "pictures/confusion_matrix.png"}
    assert [file.path for file in MlflowClient().list_artifacts(run.run_id, "results")] == [
        "results/run.json"
    ]
    assert list((tmp_path / "work").rglob("*.lock")) == []


@pytest.mark.parametrize(
    ("failure", "expected"), [(RuntimeError, "FAILED"), (signal.SIGTERM, "KILLED"), (signal.SIGINT, "KILLED")]
)
def test_the_run_ends_as_its_stage_does(
    failure: type[Exception] | signal.Signals, expected: str, tmp_path: Path
) -> None:
    def train() -> None:
        with Courier() as courier, courier.tracked_run("trial", "a", {}, tmp_path / "id") as run:
            run.add_metrics({"loss": 1.0}, 1)
            if not isinstance(failure, signal.Signals):
                raise failure
            os.kill(os.getpid(), failure)
            time.sleep(20)  # interrupted at once

    with pytest.raises((RuntimeError, SystemExit, KeyboardInterrupt)):
        train()
    connect("trial")
    run_id = (tmp_path / "id").read_text()
    assert (status(run_id), losses(run_id)) == (expected, {1: 1.0})


# A stage that is killed, fails or ends; a process that it has started, as those that load images are,
# outlives it.
STAGE = """
import os, sys, time
from pathlib import Path
from pipeline.tracking.courier import Courier
with Courier() as courier, courier.tracked_run("trial", "a", {}, Path("id")) as run:
    for step in range(1, 4):
        run.add_metrics({"loss": 1 / step}, step)
    if not os.fork():
        time.sleep(60)
    print(courier._process.pid, flush=True)
    time.sleep(float(sys.argv[1]))
    if sys.argv[2:]:
        raise ValueError
"""


@contextmanager
def stage(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", STAGE, *arguments],
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


@pytest.mark.parametrize("fails", [(), ("fails",)])
def test_a_stage_ends_though_a_process_that_it_has_started_does_not(fails: tuple[str, ...]) -> None:
    with stage("0", *fails) as started:
        assert started.stdout is not None
        process = int(started.stdout.readline())
        assert started.wait(20) == len(fails)
        assert is_gone(process)


def test_what_a_killed_stage_has_said_arrives_and_the_run_goes_on(tmp_path: Path) -> None:
    with stage("60") as started:
        assert started.stdout is not None
        process = int(started.stdout.readline())
        started.kill()
        while not is_gone(process):
            time.sleep(0.05)
        connect("trial")
        run_id = (tmp_path / "id").read_text()
        assert (status(run_id), len(losses(run_id))) == ("RUNNING", 3)
    with stage("60") as started:  # and goes on at once
        assert started.stdout is not None
        process = int(started.stdout.readline())
        started.kill()
        with Courier() as courier, courier.tracked_run("trial", "a", {}, tmp_path / "id") as run:
            assert is_gone(process), "two processes told MLflow about the same run"
            assert run.run_id == run_id
            assert losses(run.run_id) == pytest.approx({1: 1.0, 2: 1 / 2, 3: 1 / 3})
            run.add_metrics({"loss": 9.0}, 3)  # repeated after the checkpoint
            run.add_metrics({"loss": 1 / 4}, 4)
    assert losses(run.run_id) == pytest.approx({step: 1 / step for step in range(1, 5)})
    (only,) = MlflowClient().search_runs([connect("trial")])
    assert (only.info.run_id, only.info.status) == (run.run_id, "FINISHED")


def test_a_courier_that_was_killed_is_one_sentence(tmp_path: Path) -> None:
    def train() -> None:
        with Courier() as courier, courier.tracked_run("trial", "a", {}, tmp_path / "id") as run:
            courier._process.kill()
            courier._process.wait()
            run.add_metrics({"loss": 1.0}, 1)
            run.send(now=True)

    with pytest.raises(UserError, match=r"the process that talks to MLflow .* run the same command again"):
        train()


def test_mistakes_and_faults_reach_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(folder: Path) -> None:
        with Courier() as courier, courier.tracked_run("trial", "a", {}, folder / "id") as run:
            run.add_model(tmp_path / "none", np.zeros((2, 8, 8, 3), np.uint8))

    with pytest.raises(FileNotFoundError, match="none"):
        train(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "foo://bar")
    with pytest.raises(UserError, match="MLflow knows no such kind of address"):
        train(tmp_path / "other")


def test_a_stage_that_fails_before_its_run_leaves_no_trace(tmp_path: Path) -> None:
    started = time.monotonic()
    courier = Courier()

    def train() -> None:
        with courier:
            raise UserError("a mistake")

    with pytest.raises(UserError):
        train()
    assert time.monotonic() - started < 2  # it did not wait for MLflow
    assert is_gone(courier._process.pid)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def server(module_server: Server) -> Server:
    module_server.start_again()
    return module_server


@pytest.mark.slow
def test_a_lost_server_is_reported_on_the_terminal_of_the_stage(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    with Courier() as courier, courier.tracked_run("trial", "a", {}, tmp_path / "id") as run:
        server.kill()
        run.add_metrics({"loss": 1.0}, 1)
        assert not run.send(now=True)
        assert "does not take what run" in caplog.text
    assert "send it with: stochca sync" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert any(UNSYNCED.iterdir())


class Stalling:
    """Stands before a server and passes everything on, until it keeps what arrives: uploads, or all."""

    def __init__(self, server: Server | None, only_uploads: bool = False) -> None:
        self.server = server
        self.only_uploads = only_uploads
        self.stalls = server is None
        self.has_stalled = Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self.listener.accept()
            if self.server is None:
                self._pass_on(client, client)
                continue
            upstream = socket.create_connection(("127.0.0.1", self.server.port))
            Thread(target=self._pass_on, args=(client, upstream), daemon=True).start()
            Thread(target=self._pass_on, args=(upstream, client), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self.stalls or (self.only_uploads and data.startswith(b"PUT")):
                    self.has_stalled.set()
                    self.kept = source, target  # they stay open
                    return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def interrupt_when(event: Event) -> list[float]:
    """Ctrl-C, for this process alone, soon after the event; gives where its time is written."""
    times: list[float] = []

    def interrupt() -> None:
        assert event.wait(60)
        time.sleep(0.5)
        times.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    Thread(target=interrupt, daemon=True).start()
    return times


def test_ctrl_c_at_a_server_that_does_not_answer_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stalling = Stalling(None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stalling.uri)

    def train() -> None:
        with Courier() as courier, courier.tracked_run("trial", "a", {}, tmp_path / "id"):
            pytest.fail("it was entered")

    times = interrupt_when(stalling.has_stalled)
    with pytest.raises(KeyboardInterrupt):
        train()
    assert time.monotonic() - times[0] < 4
    assert list(tmp_path.rglob("*.lock")) == []


@pytest.mark.slow
@pytest.mark.parametrize("now", [True, False], ids=["asked for", "told"])
def test_ctrl_c_ends_an_upload_that_goes_nowhere(
    now: bool, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stalling = Stalling(server, only_uploads=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stalling.uri)

    def train() -> None:
        with Courier() as courier, courier.tracked_run("trial", "a", {}, tmp_path / "id") as run:
            (run.artifacts / "large").write_bytes(bytes(1000))
            run.send(now=now)
            run.add_metrics({"loss": 0.5}, 1)
            time.sleep(60)

    times = interrupt_when(stalling.has_stalled)
    with pytest.raises(KeyboardInterrupt):
        train()
    assert time.monotonic() - times[0] < 20
    (waiting,) = UNSYNCED.glob("*/artifacts/*")
    assert waiting.name == "large"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    connect("trial")
    run_id = (tmp_path / "id").read_text()
    assert (status(run_id), losses(run_id)) == ("KILLED", {} if now else {1: 0.5})


@pytest.mark.slow
def test_training_does_not_wait_for_a_server_that_hangs(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stalling = Stalling(server)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stalling.uri)
    with Courier() as courier, courier.tracked_run("trial", "a", {}, tmp_path / "id") as run:
        stalling.stalls = True
        longest = 0.0
        for step in range(2000):
            started = time.monotonic()
            run.add_metrics({"loss": 1.0}, step)
            run.send()
            longest = max(longest, time.monotonic() - started)
            time.sleep(0.001)
        assert longest < 1
        assert stalling.has_stalled.is_set()
        stalling.stalls = False
        assert run.send(now=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    connect("trial")
    history = sorted(MlflowClient().get_metric_history(run.run_id, "loss"), key=lambda point: point.step)
    assert [point.step for point in history] == list(range(2000))
    gaps = [after.timestamp - before.timestamp for before, after in pairwise(history)]
    assert max(gaps) < 1000  # milliseconds: when they were taken, not when they were sent
