"""A project with a real MLflow database and real models."""

import shutil
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from pipeline.config.params import Params, load_params
from tests.pipeline.colour_models import (
    colour_model,
    items,
    publish,
    replaced,
    write_backbone,
    write_prepared,
)
from tests.pipeline.synthetic_runs import write_params

# On test finetune-all-0 is right about 43 of 60 images, finetune-all-1 about 57, stochca-all-0 about all.
FORGETS = {("finetune", 0): ["blue"], ("finetune", 1): ["white"], ("stochca", 0): [], ("stochca", 1): ["red"]}
VALIDATION = {("finetune", 0): 0.6, ("finetune", 1): 0.5, ("stochca", 0): 0.9, ("stochca", 1): 0.3}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, new_database: Path) -> Path:
    """A folder with prepared images, runs, and the MLflow database that they were tracked to."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(new_database, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        params = write_params(folder, seeds=(0, 1), protocol={"baseline": ["finetune"], "combined": []})
        write_backbone(folder / "data" / "backbone")
        write_prepared(folder / "data" / "prepared", items())
        for (method, seed), forgets in FORGETS.items():
            publish(params, method, seed, colour_model(forgets), VALIDATION[method, seed])
    return folder


@pytest.fixture
def params(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The project's params, in a copy of it."""
    shutil.copytree(project, tmp_path / "project", ignore=shutil.ignore_patterns("mlruns"))
    (tmp_path / "project" / "mlruns").symlink_to(project / "mlruns")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return load_params()


def aliases() -> dict[str, str]:
    return {k: str(v) for k, v in MlflowClient().get_registered_model("stochca").aliases.items()}


def prefer(method: str, seed: int) -> None:
    """Make a seed the best of its method on validation."""
    replaced(Path("metrics") / f"{method}-all-{seed}.json", validation_accuracy=0.99)
