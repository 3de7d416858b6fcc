"""Evaluation of a split: logits, and how good they are, always without augmentation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stochca._typing import TimmModule
from stochca.compute.distributed import from_main, joined
from stochca.compute.modes import evaluating
from stochca.compute.precision import autocast
from stochca.config.selection import SELECTIONS, Selection
from stochca.data.batches import evaluation_batches
from stochca.data.examples import Examples
from stochca.data.images import CheckedLabels, Images, share_of_rank
from stochca.data.preprocessing import Preprocessing
from stochca.errors import UserError

SHOWN = 5  # classes that a sentence names


@dataclass(frozen=True)
class Scores:
    """How good a model is on some images, by the metric that chooses between models among others."""

    loss: float  # mean cross-entropy in nats
    accuracy: float  # share of right answers
    selection: Selection = "accuracy"
    measured: float | None = None  # the metric `selection`, where it is neither of the two

    @property
    def value(self) -> float:
        """Of the metric that chooses."""
        if self.measured is not None:
            return self.measured
        return self.loss if self.selection == "log_loss" else self.accuracy

    @property
    def merit(self) -> tuple[float, float]:
        """What models are ordered by: more is better. Of equals the loss decides."""
        return SELECTIONS[self.selection].merit(self.value), SELECTIONS["log_loss"].merit(self.loss)


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
    """Logits (N, classes) in fp32 and labels (N,), on the CPU. Every part's mode is put back afterwards.

    With `pre_logits`, what the head sees in place of what it gives: (N, D).
    """

    def features(batch: Tensor) -> Tensor:
        return model.forward_head(model.forward_features(batch), pre_logits=True)

    forward = features if pre_logits else model
    logits, labels = [], []
    with evaluating(model):
        for batch, batch_labels in evaluation_batches(
            CheckedLabels(images, "images"), preprocessing, batch_size=batch_size, workers=workers
        ):
            with autocast(precision, device):
                logits.append(forward(batch.to(device, non_blocking=True)).float().cpu())
            labels.append(batch_labels)
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
    logits, labels = predict_together(model, examples.validation, examples)
    return from_main(score(logits, labels, examples.selection), examples.device)


def score(logits: Tensor, labels: Tensor, selection: Selection = "accuracy") -> Scores:
    """Of logits (N, classes) and labels (N,)."""
    loss = functional.cross_entropy(logits, labels).item()
    accuracy = (logits.argmax(dim=1) == labels).double().mean().item()
    if selection in ("accuracy", "log_loss"):
        return Scores(loss, accuracy, selection)
    probabilities = logits.double().softmax(dim=1).numpy()
    return Scores(loss, accuracy, selection, measure(selection, labels.numpy(), probabilities))


def measure(selection: Selection, labels: np.ndarray, probabilities: np.ndarray) -> float:
    """A metric of probabilities (N, classes) and labels (N,), which scikit-learn computes.

    Means over classes leave out those that do not occur: of balanced_accuracy among the labels, of macro_f1
    neither there nor among the predictions. The auroc of labels that lack a class is NaN, as is what can't
    be measured of probabilities that are not finite.
    """
    metrics = scikit_learn_metrics()
    if selection in ("log_loss", "auroc") and not np.isfinite(probabilities).all():
        return float("nan")
    predictions, classes = probabilities.argmax(axis=1), np.arange(probabilities.shape[1])
    match selection:
        case "accuracy":
            return float(metrics.accuracy_score(labels, predictions))
        case "balanced_accuracy":
            occurring = np.unique(labels)
            return float(metrics.recall_score(labels, predictions, labels=occurring, average="macro"))
        case "macro_f1":
            return float(metrics.f1_score(labels, predictions, average="macro", zero_division=0.0))
        case "log_loss":
            return float(metrics.log_loss(labels, probabilities, labels=classes))
    if len(np.unique(labels)) < len(classes):
        return float("nan")
    ranked = probabilities[:, 1] if len(classes) == 2 else probabilities
    return float(metrics.roc_auc_score(labels, ranked, multi_class="ovr", labels=classes))


def check_selection(selection: Selection) -> None:
    """Raise `UserError` where the metric needs scikit-learn, which is not installed."""
    if selection not in ("accuracy", "log_loss"):
        scikit_learn_metrics()


def check_every_class(labels: np.ndarray, classes: Sequence[str], images: str) -> None:
    """Raise `UserError` where a class does not occur, by which there is no AUROC.

    Args:
        images: what the labels are of, for the sentence: ``validation images``.
    """
    occurring = set(labels.tolist())
    absent = [name for label, name in enumerate(classes) if label not in occurring]
    if absent:
        more = f" and {len(absent) - SHOWN} more" if len(absent) > SHOWN else ""
        raise UserError(
            f"selection auroc needs {images} of every class, but there are none of "
            f"{', '.join(absent[:SHOWN])}{more}; add some, or select by balanced_accuracy, macro_f1, "
            "log_loss or accuracy"
        )


def scikit_learn_metrics() -> Any:
    """Its module, which only some metrics need.

    Raises:
        UserError: it is not installed.
    """
    try:
        from sklearn import metrics
    except ImportError:
        raise UserError(
            "selection by balanced_accuracy, macro_f1 and auroc needs scikit-learn: pip install scikit-learn"
        ) from None
    return metrics
