"""What a shared machine does to the pipeline, done for real: each is one sentence, and mended it goes on."""

import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import yaml
from mlflow.tracking import MlflowClient

from tests.e2e.workspace import SLOWER, Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TRAIN = (sys.executable, "-m", "pipeline.train")
FINETUNE = (*TRAIN, "finetune", "all", "0")
STOCHCA = (*TRAIN, "stochca", "all", "0")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Everything that training needs, and one trained model."""
    workspace = Workspace.prepared(tmp_path_factory.mktemp("faults") / "project", SLOWER)
    workspace.run("dvc", "repro", "baseline@finetune-all-0")
    shutil.rmtree(workspace.folder / "work")  # or the tests would go on from its last checkpoint
    return workspace


@pytest.fixture
def workspace(prepared: Workspace, tmp_path: Path) -> Workspace:
    return prepared.copied_to(tmp_path / "project")


def one_sentence(output: str) -> str:
    """The error; nothing of Python's is around it."""
    assert "Traceback" not in output, output
    (error,) = [line for line in output.splitlines() if line.startswith("error: ")]
    return error


@contextmanager
def started(workspace: Workspace, *command: str) -> Iterator[subprocess.Popen[str]]:
    """It and what it started do not outlive the block."""
    process = workspace.start(*command)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def wait_for_checkpoint(workspace: Workspace, process: subprocess.Popen[str], run: str) -> None:
    while not workspace.checkpoints(run):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


def ended_well(process: subprocess.Popen[str]) -> str:
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    return output


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def weights(workspace: Workspace, run: str = "finetune-all-0") -> str:
    return digest(workspace.folder / "models" / run / "model.safetensors")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """As another program does that writes for long."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            database.execute("ROLLBACK")


def test_a_database_that_is_locked_while_a_model_trains(workspace: Workspace) -> None:
    with started(workspace, *STOCHCA) as training:
        wait_for_checkpoint(workspace, training, "stochca-all-0")
        with locked(workspace.folder / "mlflow.db"):
            output = ended_well(training)
    assert "Traceback" not in output
    assert "send it with: stochca sync" in output
    assert "the run is FINISHED" in workspace.run("stochca", "sync")


def test_an_edited_lock_file(workspace: Workspace) -> None:
    lock = workspace.folder / "dvc.lock"
    expected, whole = weights(workspace), lock.read_text()
    lock.write_text(whole.replace("md5: ", "md5; ", 1))
    output = workspace.run("stochca", "check", expect=2)
    assert "dvc.lock" in one_sentence(output)
    assert "git checkout dvc.lock" in output

    entries = yaml.safe_load(whole)
    for out in entries["stages"]["baseline@finetune-all-0"]["outs"]:
        out["md5"] = "0" * 32 + (".dir" if out["md5"].endswith(".dir") else "")
    lock.write_text(yaml.safe_dump(entries))
    workspace.run("stochca", "check")
    workspace.run("dvc", "repro", "baseline@finetune-all-0")
    assert weights(workspace) == expected
    entries = yaml.safe_load(lock.read_text())
    assert all(set(out["md5"]) != {"0"} for out in entries["stages"]["baseline@finetune-all-0"]["outs"])


def test_two_at_one_workspace(workspace: Workspace) -> None:
    expected = weights(workspace)
    repro = ("dvc", "repro", "--force", "--single-item", "baseline@finetune-all-0")
    with started(workspace, *repro) as first:
        wait_for_checkpoint(workspace, first, "finetune-all-0")
        os.killpg(first.pid, signal.SIGSTOP)  # it takes its time
        try:
            second = workspace.run(*repro, expect=255)
            error = one_sentence(workspace.run(*FINETUNE, expect=2))
        finally:
            os.killpg(first.pid, signal.SIGCONT)
        assert "is busy, it is being blocked by" in second
        assert "Traceback" not in second
        assert "another process is at work on" in error
        ended_well(first)
    assert weights(workspace) == expected


def test_dvc_that_is_gone_before_it_could_record_a_training(workspace: Workspace) -> None:
    """A kill of `make repro` or of DVC alone: the training goes on, and nobody waits for it any more."""
    expected = weights(workspace)
    repro = ("dvc", "repro", "--force", "--no-run-cache", "--single-item", "baseline@finetune-all-0")
    with started(workspace, *repro) as process:
        wait_for_checkpoint(workspace, process, "finetune-all-0")
        os.kill(process.pid, signal.SIGTERM)
        while list(workspace.folder.glob("work/*.lock")):
            time.sleep(0.05)
        process.communicate(timeout=60)
    assert weights(workspace) == expected
    output = workspace.run(*repro)
    assert "finetune-all-0: had finished before, and goes on from its last checkpoint" in output
    assert "finetune-all-0: step" not in output
    assert weights(workspace) == expected
    assert "didn't change" in workspace.run("dvc", "repro", "--single-item", "baseline@finetune-all-0")


def test_two_runs_write_one_database(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path / 'shared.db'}"  # not there yet: both make it
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    other = workspace.copied_to(tmp_path / "other")
    with started(workspace, *STOCHCA) as one, started(other, *STOCHCA) as two:
        ended_well(one)
        ended_well(two)
    assert weights(workspace, "stochca-all-0") == weights(other, "stochca-all-0")
    client = MlflowClient(uri)
    (experiment,) = [found for found in client.search_experiments() if found.name != "Default"]
    runs = [
        run for run in client.search_runs([experiment.experiment_id]) if "test_accuracy" in run.data.metrics
    ]
    assert len(runs) == 2
    for run in runs:
        assert run.info.status == "FINISHED"
        history = client.get_metric_history(run.info.run_id, "train_loss")
        assert [point.step for point in history] == list(range(1, 13))


def test_the_clock_goes_backwards(workspace: Workspace) -> None:
    """All that is there is from tomorrow."""
    expected = weights(workspace)
    workspace.kill_when(lambda: bool(workspace.checkpoints("finetune-all-0")), *FINETUNE)
    tomorrow = time.time() + 86_400
    for path in workspace.folder.rglob("*"):
        os.utime(path, (tomorrow, tomorrow), follow_symlinks=False)
    assert "continues after step" in workspace.run(*FINETUNE)
    assert weights(workspace) == expected
    shutil.copy(workspace.folder / "photos/red/00.png", workspace.folder / "photos/red/copy.png")
    output = workspace.run("dvc", "repro", "prepare")
    assert "Running stage 'prepare'" in output


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """For the superuser, whom permissions do not keep out, a mount."""
    if os.geteuid():
        folders = [folder, *(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())]
        for each in folders:
            each.chmod(0o555)
        try:
            yield
        finally:
            for each in folders:
                each.chmod(0o755)
        return
    if subprocess.run(["mount", "--bind", folder, folder], capture_output=True).returncode:
        pytest.skip("may not mount here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_what_is_in_the_way_from_the_start(workspace: Workspace) -> None:
    """One after the other: a folder that can only be read, a locked database, one of another MLflow."""
    with read_only(workspace.folder):
        for command in (STOCHCA, (sys.executable, "-m", "pipeline.prepare")):
            error = one_sentence(workspace.run(*command, expect=1))
            assert "work in" in error

    database = workspace.folder / "mlflow.db"
    with locked(database):
        error = one_sentence(workspace.run(*STOCHCA, expect=2))
    assert "mlflow.db can't be used" in error
    assert "database is locked" in error

    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'made_by_a_later_one'")
    before = digest(database)
    error = one_sentence(workspace.run(*STOCHCA, expect=2))
    assert "mlflow.db can't be used as MLflow's database" in error
    assert "move it away, or set MLFLOW_TRACKING_URI to another" in error
    assert digest(database) == before

    database.rename(workspace.folder / "later.db")
    workspace.run(*STOCHCA)
