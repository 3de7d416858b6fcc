"""Co-Tuning (You et al., NeurIPS 2020): the source classifier learns along, on fitting labels."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from stochca._typing import TimmModule
from stochca.config.penalties.cotuning import CoTuning
from stochca.data.examples import Examples
from stochca.penalties.term import Batch, Start, Term
from stochca.phases.linear_head import best_regression, features

# 17 strengths from strong to weak regularisation, as in the paper's code.
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 1e2, 3e2, 1e3, 3e3, 1e4)


class CoTrainedSource(Term):
    """Co-Tuning: λ · cross-entropy of the source classifier against p(source class | target class)."""

    def __init__(self, config: CoTuning, student: TimmModule, start: Start, examples: Examples) -> None:
        super().__init__(config, student, start, examples)
        assert start.source_head is not None  # check_settings has seen to it
        device = next(student.parameters()).device
        self.table = learn_relationship(start.model, start.source_head, examples).table.to(device)
        self.head = copy.deepcopy(start.source_head).to(device).requires_grad_(True)

    def __call__(self, batch: Batch) -> Tensor:
        assert batch.student.pooled is not None
        targets = batch.targets @ self.table.to(batch.targets.dtype)
        with torch.autocast(batch.images.device.type, enabled=False):
            logits = self.head(batch.student.pooled)
        return self.config.weight * functional.cross_entropy(logits, targets)

    def modules(self) -> dict[str, tuple[nn.Module, float]]:
        return {"source_head": (self.head, 1.0)}


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
    rows, labels = features(model, examples.train if train else examples.validation, examples)
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
