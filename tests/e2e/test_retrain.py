"""The nightly flow as it runs: real DVC, real training, MLflow's real registry, a real Prefect server."""

import re
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tests.e2e.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def champion(workspace: Workspace) -> str:
    client = MlflowClient(f"sqlite:///{workspace.folder}/mlflow.db")
    return str(client.get_model_version_by_alias("stochca", "champion").version)


def test_a_better_one_takes_the_place_of_the_champion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    monkeypatch.setenv("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    workspace = Workspace.prepared(tmp_path / "project")

    def worse_first(raw: dict[str, dict[str, object]]) -> None:
        raw["tracking"].update(log_model=True)
        raw["protocol"].update(baseline=[], combined=[])
        raw["compare"].update(reference="stochca", analysed=["stochca"])
        raw["promotion"].update(method="stochca")
        raw["training"].update(lr=1e-12)  # learns nothing

    workspace.edit_params(worse_first)
    workspace.run("dvc", "repro", "stochca@all-0")
    assert "is the first model: it is the champion" in workspace.run("stochca", "promote")
    assert champion(workspace) == "1"

    workspace.edit_params(lambda raw: raw["training"].update(lr=1e-3, steps=60, head_lr_scale=10))
    output = workspace.run("python", "-m", "flows.retrain")
    assert re.search("stochca@all-0 has to run: .*training", output), output
    assert "is better than the champion, version 1" in output
    assert champion(workspace) == "2"
