"""Evaluation of a split: logits, accuracy and loss, always without augmentation."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from stochca._typing import TimmModule
from stochca.compute.distributed import from_main, joined
from stochca.compute.precision import autocast
from stochca.data.batches import evaluation_batches
from stochca.data.examples import Examples
from stochca.data.images import Images, share_of_rank
from stochca.data.preprocessing import Preprocessing


@dataclass(frozen=True)
class Scores:
    """Mean cross-entropy in nats, and the share of right answers."""

    loss: float
    accuracy: float


@torch.no_grad()
def predict(
    model: TimmModule,
    images: Images,
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    precision: str = "fp32",
    batch_size: int = 64,
    workers: int | str = 0,
    pre_logits: bool = False,
) -> tuple[Tensor, Tensor]:
    """Logits (N, classes) in fp32 and labels (N,), on the CPU. The model's mode is put back afterwards.

    With `pre_logits`, what the head sees in place of what it gives: (N, D).
    """

    def features(batch: Tensor) -> Tensor:
        return model.forward_head(model.forward_features(batch), pre_logits=True)

    forward = features if pre_logits else model
    was_training = model.training
    model.eval()
    logits, labels = [], []
    for batch, batch_labels in evaluation_batches(
        images, preprocessing, batch_size=batch_size, workers=workers
    ):
        with autocast(precision, device):
            logits.append(forward(batch.to(device, non_blocking=True)).float().cpu())
        labels.append(batch_labels)
    model.train(was_training)
    return torch.cat(logits), torch.cat(labels)


def predict_together(
    model: TimmModule, images: Images, examples: Examples, pre_logits: bool = False
) -> tuple[Tensor, Tensor]:
    """`predict` as `examples` says; each rank of a data-parallel run takes a share, and all get all."""
    logits, labels = predict(
        model,
        share_of_rank(images),
        examples.preprocessing,
        device=examples.device,
        precision=examples.precision,
        workers=examples.workers,
        pre_logits=pre_logits,
    )
    return joined(logits), joined(labels)


def evaluate(model: TimmModule, examples: Examples) -> Scores:
    """Of `model` on the validation images; the same on all ranks."""
    return from_main(score(*predict_together(model, examples.validation, examples)), examples.device)


def score(logits: Tensor, labels: Tensor) -> Scores:
    return Scores(
        loss=functional.cross_entropy(logits, labels).item(),
        accuracy=(logits.argmax(dim=1) == labels).double().mean().item(),
    )
