"""What MLflow lacks is sent later: a real server that is killed, real processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipeline.runtime.paths import RUNS
from pipeline.tracking.publish import publish
from pipeline.tracking.run_folder import RunFolder, discard_finished, held
from pipeline.tracking.server import connect
from pipeline.tracking.sync import sync
from stochca.errors import UserError
from tests.imports import ROOT
from tests.pipeline.mlflow_server import Server
from tests.pipeline.small_model import save_small_model
from tests.pipeline.tracking.followed import followed, wait_until_said

FOLDER = RUNS / "finetune-all-0-1"


def a_run(name: str = "a") -> RunFolder:
    run = RunFolder.begin(RUNS / name, "trial", name)
    run.log({"loss": 0.5}, 1)
    return run


def status(run_id: str) -> str:
    return str(MlflowClient().get_run(run_id).info.status)


def steps(run_id: str, key: str = "loss") -> list[int]:
    return sorted(point.step for point in MlflowClient().get_metric_history(run_id, key))


def test_what_waits_is_sent_once_and_what_goes_on_is_left_alone() -> None:
    ended, killed, going_on = (a_run(name) for name in ("ended", "killed", "on"))
    ended.end("FINISHED")
    with held(going_on.folder):
        lines = list(sync())
    assert lines == [
        "ended: sent all that was waiting; the run is FINISHED",
        "killed: sent all that was waiting; the run was killed before it could end",
        "on: not sent, for its run is still going on, or another stochca sync sends it",
    ]
    runs = {run.info.run_name: run.info for run in MlflowClient().search_runs([connect("trial")])}
    assert {name: info.status for name, info in runs.items()} == {"ended": "FINISHED", "killed": "RUNNING"}
    assert not ended.folder.exists()
    assert killed.run_id == runs["killed"].run_id  # it may go on
    shutil.rmtree(going_on.folder)
    assert list(sync()) == ["Nothing waits in work/runs: MLflow has everything"]


def test_a_run_can_take_the_place_of_another_and_adopt_runs() -> None:
    """As the groups of a comparison, which are made anew after every change."""
    trained = a_run("trained")
    publish(trained.folder)
    experiment, client = connect("trial"), MlflowClient()
    for images, user, numbers in (
        ("others", None, {"test_accuracy": 0.125}),
        ("ours", "a colleague", {"test_accuracy": 0.25}),
        ("ours", None, {"test_accuracy": 0.5, "test_accuracy_std": 0.1}),
        ("ours", None, {"test_accuracy": 0.75}),
    ):
        replaces = {"group": "stochca", "dataset_fingerprint": images}
        group = RunFolder.begin(RUNS / "group", "trial", "group", replaces=replaces)
        group.log(numbers)
        group.adopt([trained.run_id, "of another server"])
        group.end("FINISHED")
        publish(group.folder)
        groups = client.search_runs([experiment], "tags.group = 'stochca'")  # the newest first
        if user:
            client.set_tag(groups[0].info.run_id, "mlflow.user", user)
    left = [{"test_accuracy": value} for value in (0.75, 0.25, 0.125)]  # and no spread of before
    assert [run.data.metrics for run in groups] == left
    tags = MlflowClient().get_run(trained.run_id).data.tags
    assert tags["mlflow.parentRunId"] == groups[0].info.run_id


def test_a_server_that_is_slow_once_gets_no_second_run(monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run()
    run.end("KILLED")
    publish(run.folder)
    first = run.run_id

    def too_slow(self: MlflowClient, run_id: str) -> None:
        raise MlflowException("API request to http://x failed with exception Read timed out")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "get_run", too_slow)
        with pytest.raises(UserError, match="no server answers there"):
            publish(run.folder)
    publish(run.folder)
    assert run.run_id == first


def test_files_are_added_to_a_run_that_has_ended() -> None:
    trained = a_run("trained")
    publish(trained.folder)
    more = RunFolder.of_known_run(RUNS / "more", trained.run_id)
    (more.artifacts / "blocks.png").touch()
    more.end("FINISHED")
    publish(more.folder)
    assert [file.path for file in MlflowClient().list_artifacts(trained.run_id)] == ["blocks.png"]
    assert not more.folder.exists()


def test_a_finished_run_that_begins_again_is_the_same_run() -> None:
    """DVC was killed before it had recorded what the run left, and runs its stage again."""
    for loss in (0.5, 0.25):
        run = RunFolder.begin(RUNS / "again", "trial", "again")
        run.log({"loss": loss}, 1)
        (run.artifacts / "curves.png").touch()
        (run.folder / "checkpoint").touch()
        run.end("FINISHED")
        publish(run.folder)
        left = {path.name for path in run.folder.iterdir()}
        assert left == {"checkpoint", "metrics.jsonl", "mlflow.json", "published", "run.json"}
    assert list(sync()) == ["Nothing waits in work/runs: MLflow has everything"]
    (found,) = MlflowClient().search_runs([connect("trial")], "attributes.run_name = 'again'")
    assert (found.info.run_id, found.info.status) == (run.run_id, "FINISHED")
    assert [point.value for point in MlflowClient().get_metric_history(run.run_id, "loss")] == [0.5]
    assert [file.path for file in MlflowClient().list_artifacts(run.run_id)] == ["curves.png"]


def test_a_damaged_folder_and_one_of_another_time_are_one_sentence(tmp_path: Path) -> None:
    run, sound = a_run(), a_run("sound")
    sound.end("FINISHED")
    (run.folder / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"work/runs/a is damaged .*remove it"):
        list(sync())
    assert not sound.folder.exists()  # it was sent all the same
    shutil.rmtree(run.folder)
    left = tmp_path / "work" / "unsynced" / "b-123"
    left.mkdir(parents=True)
    (left / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"work/unsynced/b-123 was left by an earlier version"):
        list(sync())


def test_a_run_goes_on_as_soon_as_sync_has_sent_what_it_left(capfd: pytest.CaptureFixture[str]) -> None:
    program = """
import sys, time
from pathlib import Path
from pipeline.tracking.run_folder import held
with held(Path(sys.argv[1])):
    print("sends", flush=True)
    while not Path("waited-for").exists():
        time.sleep(0.05)
    Path("sent").touch()
"""
    waiting = "waiting for another process that publishes work/runs/finetune-all-0-1"
    said: list[str] = []

    def let_it_go_on() -> None:
        try:
            said.append(wait_until_said(capfd, waiting))
        finally:
            Path("waited-for").touch()

    listener = Thread(target=let_it_go_on)
    with subprocess.Popen(
        [sys.executable, "-c", program, str(FOLDER)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "sends\n"
        listener.start()
        with followed(FOLDER, "trial", "a"):
            assert Path("sent").exists()
        listener.join()
    assert "".join([*said, capfd.readouterr().err]).count(waiting) == 1


def log_steps(first: int, last: int) -> None:
    with (FOLDER / "log.jsonl").open("a") as log:
        for step in range(first, last + 1):
            for event in (
                {"event": "step", "loss": 1 / step, "lr": 0.1, "images_per_second": 5.0},
                {"event": "eval", "loss": 2.0, "accuracy": 0.5},
            ):
                log.write(json.dumps({**event, "step": step, "time": time.time_ns() // 1_000_000}) + "\n")


def check_complete(run_id: str) -> None:
    client = MlflowClient()
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    for key in ("train_loss", "lr", "validation_accuracy"):
        assert steps(run_id, key) == list(range(1, 10))
    assert run.data.params == {"seed": "3"}
    assert run.data.metrics["test_accuracy"] == 0.75
    assert run.data.tags["mlflow.note.content"] == "A note."
    assert [file.path for file in client.list_artifacts(run_id, "results")] == ["results/run.json"]
    (model,) = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")
    assert model.status == "READY"
    assert "MLmodel" in {file.path for file in client.list_logged_model_artifacts(model.model_id)}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_outlives_its_server_and_is_synchronised_later(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    save_small_model(tmp_path / "models" / "finetune-all-0")
    started = time.monotonic()
    with followed(FOLDER, "trial", "finetune-all-0", uploads_model=True) as run:
        run_id = run.run_id
        run.add_params({"seed": 3})
        log_steps(1, 4)
        server.kill()
        log_steps(5, 9)
        run.log({"test_accuracy": 0.75})
        run.add_tags({"mlflow.note.content": "A note."})
        (run.artifacts / "results").mkdir()
        (run.artifacts / "results" / "run.json").write_text("{}")
        run.add_model(tmp_path / "models" / "finetune-all-0", np.zeros((2, 40, 40, 3), np.uint8))
        (FOLDER / "checkpoint").touch()
    ended = time.time()
    assert time.monotonic() - started < 60
    said = capfd.readouterr().err
    assert (
        f"MLflow lacks a part of run {run_id}, which is kept in {FOLDER}; send it with: stochca sync" in said
    )
    assert (FOLDER / "checkpoint").exists()  # for DVC, should it run the stage again

    with pytest.raises(UserError, match=r"no server answers"):
        list(sync())
    shutil.copytree(FOLDER, tmp_path / "copy")
    server.start()
    for after in (0.5, 1.5, 3.0):  # killed while it sends
        killed = subprocess.Popen(
            [sys.executable, "-c", "import pipeline.tracking.sync as s; print(1, flush=True); [*s.sync()]"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
        assert killed.stdout is not None
        killed.stdout.readline()
        time.sleep(after)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    if not (FOLDER / "published").exists():
        (line,) = sync()
        assert "the run is FINISHED" in line
    connect("trial")
    check_complete(run_id)
    assert ended - 60 < MlflowClient().get_run(run_id).info.end_time / 1000 <= ended
    discard_finished()
    assert not FOLDER.exists()

    shutil.copytree(tmp_path / "copy", FOLDER)  # as if it had been killed after its last request
    list(sync())
    check_complete(run_id)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_was_killed_without_its_server_goes_on_as_the_same_run(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)

    def train() -> None:
        with followed(FOLDER, "trial", "a"):
            log_steps(1, 2)
            server.kill()
            log_steps(3, 5)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(20)

    with pytest.raises(KeyboardInterrupt):
        train()
    run_id = RunFolder(FOLDER).run_id
    server.start()
    list(sync())
    connect("trial")
    assert (status(run_id), steps(run_id, "train_loss")) == ("KILLED", [1, 2, 3, 4, 5])
    with followed(FOLDER, "trial", "a") as run:
        log_steps(4, 9)  # from the checkpoint at 3
        assert run.run_id == run_id
    assert (status(run_id), steps(run_id, "train_loss")) == ("FINISHED", list(range(1, 10)))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_was_deleted_is_made_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    run = a_run("deleted")
    run.end("KILLED")
    publish(run.folder)
    first = run.run_id
    MlflowClient().delete_run(first)
    run = a_run("deleted")
    run.end("FINISHED")
    publish(run.folder)
    experiment = connect("trial")
    (found,) = MlflowClient().search_runs([experiment], "attributes.run_name = 'deleted'")
    assert found.info.run_id != first
