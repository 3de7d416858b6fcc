"""Uploads a trained model to MLflow so that it can be served from there."""

import warnings
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import numpy as np
from mlflow.entities import LoggedModel, LoggedModelStatus, Run
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import Schema, TensorSpec

from stochca.backbones.card import OWN_BACKBONE

NAME = "model"
CODE = Path(__file__).parents[2] / "stochca"  # goes along with such models, which timm alone can't load
SERVED = str(Path(__file__).with_name("served_model.py"))
REQUIREMENTS = ("torch", "torchvision", "timm", "safetensors", "numpy", "pillow")

SIGNATURE = ModelSignature(
    inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))]),
    outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1))]),
)


def requirements() -> list[str]:
    """The packages that serving needs; without a local version such as +cpu, which package indexes lack."""
    return [f"{package}=={version(package).partition('+')[0]}" for package in REQUIREMENTS]


def prepare_to_log() -> None:
    """Save a model without weights for nothing: what a first save loads and lists takes MLflow seconds."""
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has no example
        mlflow.pyfunc.save_model(
            Path(folder) / NAME,
            python_model=SERVED,
            signature=SIGNATURE,
            pip_requirements=requirements(),
        )


def log_model(folder: Path, example: np.ndarray, run_id: str) -> None:
    """Log the model of `folder` to a run as code and safetensors, unless the run has it already.

    Args:
        example: uint8 images (B, height, width, 3) that show what the model takes.
    """
    client = MlflowClient()
    run = client.get_run(run_id)
    for logged in logged_models(client, run):
        if logged.status == LoggedModelStatus.READY:
            return
        client.delete_logged_model(logged.model_id)  # its upload was interrupted
    # Made here, because MLflow would put the model of a run that is not active into another experiment.
    logged = client.create_logged_model(
        run.info.experiment_id, NAME, source_run_id=run_id, params=run.data.params
    )
    Model.log(
        artifact_path=None,
        name=NAME,
        flavor=_Flavor,
        run_id=run_id,
        model_id=logged.model_id,
        python_model=SERVED,
        artifacts={"model": str(folder)},
        code_paths=[str(CODE)] if (folder / OWN_BACKBONE).is_dir() else None,
        signature=SIGNATURE,
        input_example=example,
        pip_requirements=requirements(),
        validate_serving_input=False,
    )


class _Flavor:
    """MLflow's `pyfunc`, which does not answer the example: that would load PyTorch and the model."""

    @staticmethod
    def save_model(*, validate_serving_input: bool, **options: Any) -> None:
        mlflow.pyfunc.save_model(**options)


def logged_models(client: MlflowClient, run: Run) -> list[LoggedModel]:
    """The models that were logged to a run, the newest first."""
    return list(
        client.search_logged_models(
            [run.info.experiment_id], f"source_run_id = '{run.info.run_id}' AND name = '{NAME}'"
        )
    )
