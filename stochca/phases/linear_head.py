"""The first phase of LP-FT: the best linear head on frozen features, by logistic regression."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from stochca._typing import TimmModule
from stochca.compute.distributed import joined
from stochca.compute.precision import autocast
from stochca.data.batches import evaluation_batches
from stochca.data.images import Images, ImageShare
from stochca.data.preprocessing import Preprocessing
from stochca.errors import UserError
from stochca.evaluation import Scores, score


@torch.no_grad()
def features(
    model: TimmModule,
    images: Images,
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    precision: str,
    workers: int | str = 0,
) -> tuple[Tensor, Tensor]:
    """What the head sees: (N, D) in fp32, and labels (N,); on the CPU.

    Each rank of a data-parallel run looks at a share of the images, and every rank gets everything.
    """
    was_training = model.training
    model.eval()
    rows, labels = [], []
    for batch, batch_labels in evaluation_batches(
        ImageShare(images), preprocessing, batch_size=64, workers=workers
    ):
        with autocast(precision, device):
            hidden = model.forward_features(batch.to(device))
            rows.append(model.forward_head(hidden, pre_logits=True).float().cpu())
        labels.append(batch_labels)
    model.train(was_training)
    return joined(torch.cat(rows)), joined(torch.cat(labels))


def fit_logistic_regression(inputs: Tensor, labels: Tensor, classes: int, C: float) -> tuple[Tensor, Tensor]:
    """Weight (classes, D) and bias (classes,) that minimise C · Σ cross-entropy + ½‖weight‖².

    Convex, solved by L-BFGS from zero, so the result does not depend on any seed.
    """
    weight = torch.zeros(classes, inputs.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    inputs = inputs.double()
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=500,
        tolerance_grad=1e-7,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(inputs @ weight.T + bias, labels)
        loss = loss + weight.square().sum() / (2 * C * len(labels))
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach().float(), bias.detach().float()


class Regression(NamedTuple):
    """A logistic regression that was chosen by its scores on held-out rows."""

    C: float
    scores: Scores
    weight: Tensor  # (classes, D)
    bias: Tensor  # (classes,)


def best_regression(
    train: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor], classes: int, strengths: Sequence[float]
) -> Regression:
    """Of one regression per strength `C`, fitted to `train`, the most accurate on `held_out`, then by loss.

    Args:
        train: rows (N, D) and labels (N,).
        held_out: rows (M, D) and labels (M,).
    """
    rows, labels = held_out
    candidates = []
    for C in strengths:
        weight, bias = fit_logistic_regression(*train, classes, C)
        candidates.append(Regression(C, score(rows @ weight.T + bias, labels), weight, bias))
    return max(candidates, key=lambda each: (each.scores.accuracy, -each.scores.loss))


def linear_heads(model: TimmModule) -> list[nn.Linear]:
    """The model's classifiers; distilled models have two.

    Raises:
        UserError: one is not linear.
    """
    heads = model.get_classifier()
    heads = list(heads) if isinstance(heads, tuple) else [heads]
    if not all(isinstance(head, nn.Linear) for head in heads):
        raise UserError(f"phases lp_ft and zero_shot need a linear head, found {type(heads[0]).__name__}")
    return heads


def fit_head(
    model: TimmModule,
    train: Images,
    validation: Images,
    preprocessing: Preprocessing,
    *,
    strengths: Sequence[float],
    device: torch.device,
    precision: str,
    workers: int | str = 0,
    refit: bool = False,
) -> str:
    """Replace the head by the best of one logistic regression per strength `C`, chosen on validation.

    With `refit`, the best is fitted once more, to the training and validation images together.

    Returns a sentence that says which was chosen.

    Raises:
        UserError: the head is not linear.
    """
    heads = linear_heads(model)
    loading: dict[str, Any] = {"device": device, "precision": precision, "workers": workers}
    train_rows, train_labels = features(model, train, preprocessing, **loading)
    rows, labels = features(model, validation, preprocessing, **loading)
    # Solved on standardised features, where one grid of strengths fits every backbone.
    mean, std = train_rows.mean(0), train_rows.std(0, correction=0).clamp_min(1e-6)
    train_rows, rows = (train_rows - mean) / std, (rows - mean) / std
    classes = heads[0].out_features
    C, scores, weight, bias = best_regression((train_rows, train_labels), (rows, labels), classes, strengths)
    if refit:
        everything = torch.cat([train_rows, rows]), torch.cat([train_labels, labels])
        weight, bias = fit_logistic_regression(*everything, classes, C)
    weight = weight / std
    with torch.no_grad():
        for head in heads:
            head.weight.copy_(weight)
            head.bias.copy_(bias - weight @ mean)
    return f"the head was fitted first, with C = {C:g}: validation accuracy {scores.accuracy:.3f}"
