"""The best linear head on frozen features, by logistic regression."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.config.selection import Selection
from stochca.data.class_weights import cross_entropy
from stochca.data.examples import Examples
from stochca.data.images import Images
from stochca.errors import UserError
from stochca.evaluation import Scores, predict_together, score
from stochca.timm_models.families import head_modules


def features(model: TimmModule, images: Images, examples: Examples) -> tuple[Tensor, Tensor]:
    """What the head sees of images: (N, D) in fp32, and labels (N,); on the CPU, of all ranks together."""
    return predict_together(model, images, examples, pre_logits=True)


def fit_logistic_regression(
    inputs: Tensor, labels: Tensor, classes: int, C: float, class_weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Weight (classes, D) and bias (classes,) that minimise C · Σ cross-entropy + ½‖weight‖².

    With `class_weights` (classes,) the cross-entropy of a row counts as much as its class.

    Convex, solved by L-BFGS from zero, so the result does not depend on any seed.
    """
    class_weights = None if class_weights is None else class_weights.cpu().double()
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
        loss = cross_entropy(inputs @ weight.T + bias, labels, class_weights)
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
    train: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor],
    classes: int,
    strengths: Sequence[float],
    *,
    selection: Selection = "accuracy",
    class_weights: Tensor | None = None,
) -> Regression:
    """Of one regression per strength `C`, fitted to `train`, the best on `held_out`, of equals by the loss.

    Args:
        train: rows (N, D) and labels (N,).
        held_out: rows (M, D) and labels (M,).
        selection: the metric that says which is best.
        class_weights: (classes,) of the cross-entropy.
    """
    rows, labels = held_out
    candidates = []
    for C in strengths:
        weight, bias = fit_logistic_regression(*train, classes, C, class_weights)
        scores = score(rows @ weight.T + bias, labels, selection)
        candidates.append(Regression(C, scores, weight, bias))
    return max(candidates, key=lambda each: each.scores.merit)


def linear_heads(model: TimmModule) -> list[nn.Linear]:
    """The model's classifiers; distilled models have two.

    Raises:
        UserError: one is not linear.
    """
    heads = head_modules(model)
    if not all(isinstance(head, nn.Linear) for head in heads):
        raise UserError(f"first phases need a linear head, found {type(heads[0]).__name__}")
    return heads
