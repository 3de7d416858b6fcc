"""Against a real MLflow server that is killed while a run is logged."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from pipeline.tracking import outbox as outbox_module
from pipeline.tracking.callback import MlflowCallback
from pipeline.tracking.outbox import UNSYNCED, Outbox
from pipeline.tracking.tracked_run import tracked_run
from pipeline.tracking.unsynced import sync
from stochca.errors import UserError
from stochca.training.callbacks import EvalEvent, StepEvent
from tests.pipeline.mlflow_server import Server, running
from tests.pipeline.small_model import save_small_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(autouse=True)
def in_folder(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    server.start_again()


def log_steps(callback: MlflowCallback, first: int, last: int) -> None:
    for number in range(first, last + 1):
        callback.on_step(StepEvent(number, 9, loss=1 / number, lr=0.1, images_per_second=5.0))
        callback.on_eval(EvalEvent(number, 9, loss=2.0, accuracy=0.5, is_best=True))


def steps(run_id: str, key: str) -> list[int]:
    return [point.step for point in MlflowClient().get_metric_history(run_id, key)]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def finish_without_server(server: Server, tmp_path: Path) -> str:
    """A run whose server is killed in the middle and stays away; gives its id."""
    save_small_model(tmp_path / "models" / "finetune-all-0")
    with tracked_run("trial", "finetune-all-0", {}, tmp_path / "id") as run:
        callback = MlflowCallback(run)
        run.add_params({"seed": 3})
        log_steps(callback, 1, 4)
        server.kill()
        log_steps(callback, 5, 9)
        callback.on_end()
        run.add_metrics({"test_accuracy": 0.75})
        run.add_tags({"mlflow.note.content": "A note."})
        (run.artifacts / "results").mkdir()
        (run.artifacts / "results" / "run.json").write_text("{}")
        run.add_model(tmp_path / "models" / "finetune-all-0", np.zeros((2, 40, 40, 3), np.uint8))
        assert not run.send(now=True)
    return run.run_id


def check_complete(run_id: str, status: str = "FINISHED") -> None:
    client = MlflowClient()
    run = client.get_run(run_id)
    assert run.info.status == status
    for key in ("train_loss", "lr", "validation_accuracy"):
        assert sorted(steps(run_id, key)) == list(range(1, 10))
    losses = client.get_metric_history(run_id, "train_loss")
    assert all(point.value == pytest.approx(1 / point.step) for point in losses)
    assert run.data.params == {"seed": "3"}
    assert run.data.metrics["test_accuracy"] == 0.75
    assert run.data.tags["mlflow.note.content"] == "A note."
    assert [file.path for file in client.list_artifacts(run_id, "results")] == ["results/run.json"]
    (model,) = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")
    assert model.status == "READY"
    assert "MLmodel" in {file.path for file in client.list_logged_model_artifacts(model.model_id)}


def kill_synchronising(after: float) -> None:
    """Synchronise in a process that is killed so many seconds after it has started."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import pipeline.tracking.unsynced as u; print(1, flush=True); print(*u.sync())",
        ],
        env={**os.environ, "PYTHONPATH": str(Path(outbox_module.__file__).parents[1])},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_run_outlives_its_server_and_is_synchronised_later(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    started = time.monotonic()
    run_id = finish_without_server(server, tmp_path)
    assert time.monotonic() - started < 60
    ended = time.time()
    lost, kept = warnings(caplog)
    assert lost.startswith(f"MLflow at {server.uri} does not take what run {run_id} logs (no server answers")
    assert kept.startswith(f"MLflow lacks a part of run {run_id}")
    assert kept.endswith("send it with: stochca sync")
    (folder,) = UNSYNCED.iterdir()
    assert folder.name == f"finetune-all-0-{run_id[:8]}"

    with pytest.raises(UserError, match=r"can't be sent to MLflow at .*no server answers there; set MLFLOW"):
        list(sync())
    shutil.copytree(folder, tmp_path / "copy")
    server.start()
    for after in (0.5, 1.5, 3.0):
        kill_synchronising(after)
    if folder.exists():
        (line,) = sync()
        assert "the run is FINISHED" in line
    check_complete(run_id)
    assert ended - 60 < MlflowClient().get_run(run_id).info.end_time / 1000 <= ended
    assert not folder.exists()
    assert list(sync()) == ["Nothing waits in work/unsynced: MLflow has everything"]

    shutil.copytree(tmp_path / "copy", folder)  # as if it had been killed after its last request
    list(sync())
    check_complete(run_id)


def test_a_server_that_comes_back_gets_what_was_waiting(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox_module, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr("pipeline.tracking.system_monitor.SECONDS", 0.2)
    with tracked_run("trial", "a", {}, tmp_path / "id") as run:
        callback = MlflowCallback(run)
        log_steps(callback, 1, 3)
        server.kill()
        log_steps(callback, 4, 5)
        time.sleep(0.5)
        server.start()
        time.sleep(0.5)
        log_steps(callback, 6, 7)
        assert sorted(steps(run.run_id, "train_loss")) == [1, 2, 3, 4, 5, 6, 7]
    assert [line.split()[3:5] for line in warnings(caplog)] == [["does", "not"], ["is", "back;"]]
    assert not UNSYNCED.exists() or not any(UNSYNCED.iterdir())
    system = steps(run.run_id, "system/cpu_utilization_percentage")
    assert sorted(system) == list(range(len(system)))
    assert len(system) > 5
    assert max(Counter(system).values()) == 1


def test_a_run_that_was_killed_without_its_server_goes_on_as_the_same_run(
    server: Server, tmp_path: Path
) -> None:
    def train() -> None:
        with tracked_run("trial", "a", {}, tmp_path / "id") as run:
            callback = MlflowCallback(run)
            log_steps(callback, 1, 2)
            server.kill()
            log_steps(callback, 3, 5)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(20)

    with pytest.raises(KeyboardInterrupt):
        train()
    (folder,) = UNSYNCED.iterdir()
    assert json.loads((folder / "run.json").read_text())["status"] == "KILLED"
    shutil.copytree(folder, tmp_path / "copy")
    server.start()
    list(sync())
    run_id = (tmp_path / "id").read_text()
    assert MlflowClient().get_run(run_id).info.status == "KILLED"
    assert sorted(steps(run_id, "train_loss")) == [1, 2, 3, 4, 5]

    shutil.copytree(tmp_path / "copy", folder)  # not synchronised before it goes on
    with tracked_run("trial", "a", {}, tmp_path / "id") as run:
        log_steps(MlflowCallback(run), 4, 9)  # from the checkpoint at 3
    assert run.run_id == run_id
    assert MlflowClient().get_run(run_id).info.status == "FINISHED"
    assert sorted(steps(run_id, "train_loss")) == list(range(1, 10))
    assert not folder.exists()


def test_a_run_that_was_deleted_is_one_sentence(server: Server, tmp_path: Path) -> None:
    with tracked_run("trial", "a", {}, tmp_path / "id") as run:
        pass
    outbox = Outbox.of_run(run.run_id, "a")
    outbox.add_metrics({"late": 1.0})
    outbox.keep_end("FINISHED")
    MlflowClient().delete_run(run.run_id)
    with pytest.raises(
        UserError, match=r"can't be sent to MLflow at .*; set MLFLOW_TRACKING_URI to .*forget"
    ):
        list(sync())


def test_a_server_that_hangs_holds_nothing_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracked_run("trial", "a", {}, tmp_path / "id") as run:
        callback = MlflowCallback(run)
        os.killpg(server.process.pid, signal.SIGSTOP)
        started = time.monotonic()
        callback.on_eval(EvalEvent(1, 9, loss=2.0, accuracy=0.5, is_best=True))
        assert time.monotonic() - started < 30
        started = time.monotonic()
        log_steps(callback, 2, 200)
        assert time.monotonic() - started < 5
        kept = (run.folder / "metrics.jsonl").read_text().split("\n")
        assert sum(json.loads(line)["key"] == "train_loss" for line in kept if line) == 199
        started = time.monotonic()
    assert time.monotonic() - started < 60
    os.killpg(server.process.pid, signal.SIGCONT)
    list(sync())
    assert MlflowClient().get_run(run.run_id).info.status == "FINISHED"
    assert sorted(steps(run.run_id, "train_loss")) == list(range(2, 201))
