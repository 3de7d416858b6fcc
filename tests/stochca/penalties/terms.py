"""A student before and after some training, and what a penalty alone adds to its loss."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stochca.config.training import Training
from stochca.data.examples import Examples
from stochca.training.loss import Loss
from tests.stochca.tiny import PREPROCESSING, ColouredSquares, tiny_vit

EXAMPLES = Examples(ColouredSquares(40), ColouredSquares(30, seed=1), PREPROCESSING, torch.device("cpu"))
SETTINGS = Training(steps=8, batch_size=6, lr=1e-3, evaluations=2, precision="fp32", workers=0)
BATCH = (
    torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0)),
    torch.tensor([0, 1, 2, 0, 1, 2]),
)


def source_head(classes: int = 5) -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(16, classes).requires_grad_(False)


def moved(student: Any) -> Any:
    """The student after some training: every weight is elsewhere."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return student


def term(config: Any) -> tuple[Any, Any, Loss, Tensor]:
    """The student before and after, and what the penalty alone adds to its loss."""
    student = tiny_vit().eval()
    before = copy.deepcopy(student)
    loss = Loss(student, SETTINGS, 0, (config,), source_head(), EXAMPLES)
    moved(student)
    added = loss(student, *BATCH, 1) - functional.cross_entropy(student(BATCH[0]), BATCH[1])
    return before, student, loss, added


def outputs(model: Any, images: Tensor) -> list[Tensor]:
    """Of the patch embedding and every block."""
    embedded = model.patch_embed(images)
    tokens, found = model._pos_embed(embedded), [embedded]
    for block in model.blocks:
        tokens = block(tokens)
        found.append(tokens)
    return found
