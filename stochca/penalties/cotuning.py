"""Co-Tuning: how the classes of pretraining and of the task belong together (You et al., NeurIPS 2020)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from stochca._typing import TimmModule
from stochca.data.examples import Examples
from stochca.phases.linear_head import best_regression, features

# 17 strengths from strong to weak regularisation, as in the paper's code.
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 1e2, 3e2, 1e3, 3e3, 1e4)


@dataclass(frozen=True)
class Relationship:
    """p(source class | target class), (target classes, source classes); rows sum to 1."""

    table: Tensor
    strength: float  # C of the regression that was chosen
    temperature: float  # by which it was calibrated


@torch.no_grad()
def source_probabilities(
    model: TimmModule, head: nn.Linear, examples: Examples, train: bool
) -> tuple[Tensor, Tensor]:
    """What the source classifier says of images, (N, source classes), and their target labels (N,)."""
    rows, labels = features(
        model,
        examples.train if train else examples.validation,
        examples.preprocessing,
        device=examples.device,
        precision=examples.precision,
        workers=examples.workers,
    )
    return torch.softmax(functional.linear(rows, head.weight.cpu(), head.bias.cpu()), dim=1), labels


def learn_relationship(model: TimmModule, head: nn.Linear, examples: Examples) -> Relationship:
    """By logistic regression from source probabilities to target labels, calibrated, turned round by Bayes.

    Strength and temperature are chosen on the validation images; the regression is fitted to the training
    images. p(target | source) is what it says of a source probability of one; p(source) is the mean of the
    source probabilities of the training images.
    """
    train = source_probabilities(model, head, examples, train=True)
    held_out, held_labels = source_probabilities(model, head, examples, train=False)
    C, _, weight, bias = best_regression(train, (held_out, held_labels), model.num_classes, STRENGTHS)
    temperature = calibrated_temperature(functional.linear(held_out, weight, bias), held_labels)
    # In logarithms, because a target class that no source class points to would come to 0 / 0.
    target_given_source = torch.log_softmax((weight.T + bias) / temperature, dim=1)
    joint = target_given_source.T + train[0].mean(dim=0).log()
    return Relationship(torch.softmax(joint, dim=1), C, temperature)


def calibrated_temperature(logits: Tensor, labels: Tensor) -> float:
    """What logits (N, classes) are best divided by, for the cross-entropy; L-BFGS on its logarithm."""
    logits = logits.double()
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(logits / log_temperature.clamp(-5, 5).exp(), labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    return float(log_temperature.detach().clamp(-5, 5).exp())
