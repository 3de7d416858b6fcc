"""What fine-tuning has done to a trained model, in numbers: each block beside its backbone's."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pipeline.runtime.paths import RESULTS
from pipeline.training.saved_model import TrainedModel
from stochca._typing import TimmModule
from stochca.analysis import block_features, linear_cka

BATCH_SIZE = 64


@dataclass(frozen=True)
class Analysis:
    """Of each block, the trained model beside its backbone; the contents of `analysis.json`."""

    name: str
    method: str
    images: int  # that the features were compared on
    cka_class_token: list[float]  # linear CKA of the features; the patches' mean without a class token
    cka_patches: list[float]  # of the patches' mean
    weight_distance: list[float]  # |w - w0| / |w0|
    cross_attended: list[float]  # share of the training images; empty without StochCA or its results
    attention_maps: str | None  # None: there are; otherwise why not
    shown: list[str]  # the images of the attention maps


@torch.inference_mode()
def similarity(
    trained: TrainedModel, start: TimmModule, images: Sequence[Image.Image], device: torch.device
) -> tuple[list[float], list[float]]:
    """Of each block the CKA with `start` of the class token, and that of the patches' mean.

    Both models are on the device.
    """
    transform = trained.preprocessing.evaluation()
    batches: list[list[list[tuple[Tensor, Tensor]]]] = []
    for first in range(0, len(images), BATCH_SIZE):
        inputs = torch.stack([transform(image) for image in images[first : first + BATCH_SIZE]]).to(device)
        batches.append([block_features(model, inputs) for model in (trained.model, start)])

    def features(which: int, block: int, kind: int) -> Tensor:
        return torch.cat([batch[which][block][kind].cpu() for batch in batches])

    class_token, patches = (
        [linear_cka(features(0, i, kind), features(1, i, kind)) for i in range(len(batches[0][0]))]
        for kind in (0, 1)
    )
    return class_token, patches


def cross_attended(trained: TrainedModel) -> list[float]:
    """What training counted, if its results are here and are those of this model."""
    try:
        run: dict[str, Any] = json.loads((RESULTS / trained.card["name"] / "run.json").read_text())
    except (OSError, ValueError):
        return []
    same = run.get("mlflow_run_id") == trained.card["mlflow_run_id"]
    return run.get("cross_attended", []) if same else []
