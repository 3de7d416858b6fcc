"""A tracking server that is killed while a model trains: real commands, a real server."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tests.e2e.workspace import SLOWER, Workspace
from tests.pipeline.mlflow_server import Server, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
COMMAND = ("python", "-m", "pipeline.cli")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with running(tmp_path) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        yield server


def test_training_goes_on_without_the_server_and_its_model_is_promoted_later(
    server: Server, tmp_path: Path
) -> None:
    workspace = Workspace.prepared(tmp_path / "project", SLOWER)
    workspace.edit_params(lambda raw: raw["tracking"].update(log_model=True))
    workspace.edit_params(lambda raw: raw["protocol"].update(baseline=[], combined=[]))
    workspace.edit_params(lambda raw: raw["compare"].update(reference="stochca", analysed=["stochca"]))
    workspace.edit_params(lambda raw: raw["promotion"].update(method="stochca"))

    training = workspace.start("python", "-m", "pipeline.train", "stochca", "all", "0")
    while not workspace.checkpoints("stochca-all-0"):
        assert training.poll() is None, training.communicate()[0]
    os.kill(training.pid, signal.SIGSTOP)  # until the loss has been noticed
    server.kill()
    assert training.stdout is not None
    said = ""
    while "does not take what run" not in said:
        said += training.stdout.readline()
    os.kill(training.pid, signal.SIGCONT)
    output = said + training.stdout.read()
    assert training.wait(60) == 0, output
    assert output.count("does not take what run") == 1
    assert "send it with: stochca sync" in output
    assert "Traceback" not in output
    assert (workspace.folder / "models" / "stochca-all-0" / "model.safetensors").exists()
    run_id = json.loads((workspace.folder / "results/stochca-all-0/run.json").read_text())["mlflow_run_id"]

    assert "no server answers there" in workspace.run(*COMMAND, "promote", expect=2)
    server.start()
    assert "run: stochca sync" in workspace.run(*COMMAND, "promote", expect=2)
    assert "the run is FINISHED" in workspace.run(*COMMAND, "sync")
    assert "Nothing waits" in workspace.run(*COMMAND, "sync")
    client = MlflowClient(server.uri)
    for key, expected in (("train_loss", range(1, 13)), ("validation_accuracy", (*range(2, 13, 2), 13))):
        history = client.get_metric_history(run_id, key)
        assert sorted(point.step for point in history) == list(expected)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert "test_accuracy" in run.data.metrics
    assert {file.path for file in client.list_artifacts(run_id, "pictures")} == {
        "pictures/confusion_matrix.png",
        "pictures/curves.png",
    }

    assert "is the first model: it is the champion" in workspace.run(*COMMAND, "promote")
