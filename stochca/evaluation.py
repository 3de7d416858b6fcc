"""Evaluation of a split: logits, accuracy and loss, always without augmentation."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stochca.compute.distributed import from_main, joined
from stochca.compute.precision import autocast
from stochca.data.batches import evaluation_batches
from stochca.data.images import Images, ImageShare
from stochca.data.preprocessing import Preprocessing


@dataclass(frozen=True)
class Scores:
    """Mean cross-entropy in nats, and the share of right answers."""

    loss: float
    accuracy: float


@torch.no_grad()
def predict(
    model: nn.Module,
    images: Images,
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    precision: str = "fp32",
    batch_size: int = 64,
    workers: int | str = 0,
) -> tuple[Tensor, Tensor]:
    """Logits (N, classes) in fp32 and labels (N,), on the CPU. The model's mode is put back afterwards."""
    was_training = model.training
    model.eval()
    logits, labels = [], []
    for batch, batch_labels in evaluation_batches(
        images, preprocessing, batch_size=batch_size, workers=workers
    ):
        with autocast(precision, device):
            logits.append(model(batch.to(device, non_blocking=True)).float().cpu())
        labels.append(batch_labels)
    model.train(was_training)
    return torch.cat(logits), torch.cat(labels)


def evaluate(
    model: nn.Module, images: Images, preprocessing: Preprocessing, *, device: torch.device, **options: Any
) -> Scores:
    """Scores of `predict`; in a data-parallel run each rank takes a share, and all get the same scores."""
    logits, labels = predict(model, ImageShare(images), preprocessing, device=device, **options)
    return from_main(score(joined(logits), joined(labels)), device)


def score(logits: Tensor, labels: Tensor) -> Scores:
    return Scores(
        loss=functional.cross_entropy(logits, labels).item(),
        accuracy=(logits.argmax(dim=1) == labels).double().mean().item(),
    )
