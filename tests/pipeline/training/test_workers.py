"""Two workers through real Ray Train, started as DVC starts the stage, on a tiny task."""

import contextlib
import csv
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file
from torch import Tensor

from pipeline.images.prepared import load_prepared
from stochca.config.training import Training
from stochca.data.batches import batch_share, images_of_step
from tests.e2e.workspace import SLOWER, Workspace, environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
COMMAND = ("python", "-m", "pipeline.train", "stochca", "all", "0")
STEPS = 40


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Everything that training needs, with two workers in params.yaml."""

    def edit(raw: dict[str, Any]) -> None:
        raw["training"].update(epochs=None, steps=STEPS, evaluations=4, checkpoints=8)
        raw["workers"].update(num_workers=2)
        raw["methods"]["stochca"]["attention"]["teacher_precision"] = "same"  # to be told from rounding

    workspace = Workspace.prepared(tmp_path_factory.mktemp("data_parallel") / "project", SLOWER)
    workspace.edit_params(edit)
    return workspace


@pytest.fixture(scope="module")
def undisturbed(prepared: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = prepared.copied_to(tmp_path_factory.mktemp("undisturbed") / "project")
    output = workspace.run(*COMMAND)
    assert output.count("\n") == STEPS // 10  # rank 0's lines, and none of Ray's
    assert f"step {STEPS} of {STEPS}" in output
    return workspace


@dataclass(frozen=True)
class Cluster:
    head: int  # its process
    direct: str  # addresses
    client: str


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Ray cluster of its own, to which the tests connect."""
    with socket.socket() as one, socket.socket() as two:
        ports = []
        for free in (one, two):
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    folder = tempfile.mkdtemp(prefix="ray-")  # short, because sockets lie in it
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        head = subprocess.Popen(
            ["ray", "start", "--head", "--block", "--num-cpus=2", "--include-dashboard=false",
             f"--port={ports[0]}", f"--ray-client-server-port={ports[1]}", f"--temp-dir={folder}"],
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        children: list[psutil.Process] = []
        try:
            assert head.stdout is not None
            assert any("Ray runtime started" in line for line in head.stdout)
            children = psutil.Process(head.pid).children(recursive=True)
            yield Cluster(head.pid, f"127.0.0.1:{ports[0]}", f"ray://127.0.0.1:{ports[1]}")
        finally:
            for process in (head, *children):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            head.wait()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def workspace(prepared: Workspace, tmp_path: Path) -> Workspace:
    return prepared.copied_to(tmp_path / "project")


def weights(workspace: Workspace) -> dict[str, Tensor]:
    return load_file(workspace.folder / "models" / "stochca-all-0" / "model.safetensors")


def assert_same_weights(found: Workspace, expected: Workspace) -> None:
    assert all(weights(found)[name].equal(value) for name, value in weights(expected).items())


def curve(workspace: Workspace) -> list[list[float]]:
    with (workspace.folder / "results" / "stochca-all-0" / "curves.csv").open() as file:
        return [[float(value or "nan") for value in row] for row in list(csv.reader(file))[1:]]


def database(workspace: Workspace, question: str) -> list[Any]:
    with sqlite3.connect(f"file:{workspace.folder / 'mlflow.db'}?mode=ro", uri=True) as connection:
        return connection.execute(question).fetchall()


def checkpoints(workspace: Workspace) -> dict[Path, int]:
    """The training's checkpoint, and when it was written."""
    found = (workspace.folder / "work" / "runs").glob("stochca-all-0-*/checkpoint.safetensors")
    return {path: path.stat().st_mtime_ns for path in found}


def set_address(workspace: Workspace, address: str) -> None:
    workspace.edit_params(lambda raw: raw["workers"].update(address=address))


def started_and_seen_to_train(workspace: Workspace) -> subprocess.Popen[str]:
    """The stage, once this start of it has written a checkpoint."""
    before = checkpoints(workspace)
    process = workspace.start(*COMMAND)
    while checkpoints(workspace) == before:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    return process


def workers(head: int) -> list[psutil.Process]:
    children = psutil.Process(head).children(recursive=True)
    return [child for child in children if "RayTrainWorker" in "".join(child.cmdline())]


def test_two_workers_train_as_one(workspace: Workspace, undisturbed: Workspace) -> None:
    workspace.edit_params(lambda raw: raw["workers"].update(num_workers=1))
    workspace.run(*COMMAND)
    alone, together = curve(workspace), curve(undisturbed)
    assert len(alone) == len(together) == STEPS
    for found, expected in zip(together, alone, strict=True):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4, nan_ok=True)


def test_mlflow_has_what_a_single_process_sends(undisturbed: Workspace) -> None:
    assert database(undisturbed, "select name, status from runs") == [("stochca-all-0", "FINISHED")]
    counts = "select count(*), count(distinct step) from metrics where key = '{}'"
    assert database(undisturbed, counts.format("train_loss")) == [(STEPS, STEPS)]
    assert database(undisturbed, counts.format("validation_accuracy"))[0][1] >= STEPS // 10
    tags = dict(database(undisturbed, "select key, value from tags"))
    assert (tags["num_workers"], tags["precision"]) == ("2", "fp32")
    assert tags["device"]


def test_asked_again_a_finished_training_ends_at_once(undisturbed: Workspace, tmp_path: Path) -> None:
    """By its last checkpoint, which is all that is left for it."""
    again = undisturbed.copied_to(tmp_path / "project")
    shutil.rmtree(again.folder / "models")  # as DVC does
    output = again.run(*COMMAND)
    assert "stochca-all-0: had finished before, and goes on from its last checkpoint" in output
    assert "stochca-all-0: step" not in output
    assert_same_weights(again, undisturbed)
    curves = Path("results", "stochca-all-0", "curves.csv")
    assert (again.folder / curves).read_bytes() == (undisturbed.folder / curves).read_bytes()
    assert database(again, "select name, status from runs") == [("stochca-all-0", "FINISHED")]
    assert checkpoints(again) == {
        again.folder / path.relative_to(undisturbed.folder): written
        for path, written in checkpoints(undisturbed).items()
    }
    assert not list((again.folder / "work").rglob("previous.safetensors"))


def test_a_signal_and_a_lost_worker_change_no_weight(
    workspace: Workspace, cluster: Cluster, undisturbed: Workspace
) -> None:
    """One training that is ended here, and goes on on a cluster, where it loses a worker."""
    process = started_and_seen_to_train(workspace)
    started = psutil.Process(process.pid).children(recursive=True)
    assert len(workers(process.pid)) == 2
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 143, output
    assert "Traceback" not in output
    _, alive = psutil.wait_procs(started, timeout=60)
    assert alive == []
    assert database(workspace, "select status from runs") == [("KILLED",)]

    set_address(workspace, cluster.client)
    process = started_and_seen_to_train(workspace)
    workers(cluster.head)[1].kill()
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    assert "a worker was lost; training starts again from the last checkpoint" in output
    assert output.count("continues after step") == 2  # after the signal, and again
    assert_same_weights(workspace, undisturbed)
    assert [row[:2] for row in curve(workspace)] == [row[:2] for row in curve(undisturbed)]
    assert database(workspace, "select status from runs") == [("FINISHED",)]
    counts = "select count(*), count(distinct step) from metrics where key = 'train_loss'"
    assert database(workspace, counts) == [(STEPS, STEPS)]


def test_a_damaged_image_that_one_worker_alone_reads_ends_all_with_one_sentence(
    workspace: Workspace, cluster: Cluster
) -> None:
    batch, steps = 8, 2  # too few to decode all images first
    set_address(workspace, cluster.direct)

    def edit(raw: dict[str, Any]) -> None:
        raw["training"].update(epochs=None, steps=steps, batch_size=batch)

    workspace.edit_params(edit)
    folder = workspace.folder / "data" / "prepared"
    images = load_prepared(folder).images("train")
    assert len(images) > batch * steps
    shown = images_of_step(len(images), Training(steps=steps, batch_size=batch), seed=0, step=1)
    damaged = shown[batch_share(range(batch), 1, 2)[0]]
    table = (folder / "images.arrow").read_bytes()
    encoded = list(images.encoded())[damaged]
    assert table.count(encoded) == 1
    (folder / "images.arrow").write_bytes(table.replace(encoded, bytes(len(encoded))))

    output = workspace.run(*COMMAND, expect=2)
    assert output.count("\n") == 1
    assert output.startswith("error: ")
    assert f"the prepared images are damaged: {images.ids[damaged]} can't be decoded" in output
    assert database(workspace, "select status from runs") == [("FAILED",)]
