"""Uploads a trained model to MLflow so that it can be served from there."""

from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from pipeline.prepared import PreparedImages

REQUIREMENTS = ("torch", "torchvision", "timm", "safetensors", "numpy", "pillow")


def requirements() -> list[str]:
    """The packages that serving needs; without a local version such as +cpu, which package indexes lack."""
    return [f"{package}=={version(package).partition('+')[0]}" for package in REQUIREMENTS]


def log_model(folder: Path, images: PreparedImages) -> None:
    """Log the model of `folder` to the active run as code and safetensors; two images are the example."""
    size = images[0][0].size
    example = np.stack([np.asarray(images[i][0].resize(size)) for i in range(min(2, len(images)))])
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1))]),
    )
    mlflow.pyfunc.log_model(
        name="model",
        python_model=str(Path(__file__).with_name("served_model.py")),
        artifacts={"model": str(folder)},
        signature=signature,
        input_example=example,
        pip_requirements=requirements(),
    )
