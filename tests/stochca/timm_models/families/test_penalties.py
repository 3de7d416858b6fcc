"""Penalties on outputs of blocks, on every family: their formulas, whatever the layout of the outputs."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.config import Delta, Miro
from stochca.config.training import Training
from stochca.data.examples import Examples
from stochca.penalties.delta import KeptOutputs
from stochca.training.loss import Loss
from tests.stochca.timm_models.families.cases import CASES, Case, images
from tests.stochca.tiny import PREPROCESSING, ColouredSquares

EXAMPLES = Examples(ColouredSquares(12), ColouredSquares(6, seed=1), PREPROCESSING, torch.device("cpu"))
SETTINGS = Training(steps=1, precision="fp32", workers=0)
LABELS = torch.tensor([0, 1])

every_family = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def outputs(case: Case, model: TimmModule) -> tuple[Tensor, list[Tensor]]:
    """Of the patch embedding, or the stem, and every block; as they are."""
    found: list[Tensor] = []
    embedding = model.stem if case.family.startswith(("MaxViT", "CoAtNet")) else model.patch_embed
    modules = [embedding, *case.blocks(model)]
    hooks = [module.register_forward_hook(lambda _, __, y: found.append(y.detach())) for module in modules]
    model(images())
    for hook in hooks:
        hook.remove()
    return found[0], found[1:]


def after_training(case: Case, penalty: Delta | Miro) -> tuple[TimmModule, TimmModule, Loss, float]:
    """The model before and after its weights have moved, and what the penalty adds to the loss."""
    student = case.model()
    before = copy.deepcopy(student)
    loss = Loss(student, SETTINGS, 0, (penalty,), None, EXAMPLES)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        plain = nn.functional.cross_entropy(student(images()), LABELS)
        added = loss(student, images(), LABELS, 1) - plain
    return before, student, loss, float(added)


@every_family
def test_delta(case: Case) -> None:
    before, student, _, added = after_training(case, Delta(weight=0.5, attention=False))
    expected = 0.0
    for now, then in zip(outputs(case, student)[1], outputs(case, before)[1], strict=True):
        positions = now[0].numel() / width_of(case, now)
        expected += 0.5 / 2 * float((now - then).square().sum()) / (len(now) * positions)
    assert added == pytest.approx(expected, rel=1e-3)


@every_family
def test_delta_attends_to_channels(case: Case) -> None:
    """A channel whose weight was moved to another place would show: every block's channels are its own."""
    before, student, loss, added = after_training(case, Delta(weight=0.5, images=12))
    (term,) = loss.terms
    assert isinstance(term, KeptOutputs)
    expected = 0.0
    blocks = zip(outputs(case, student)[1], outputs(case, before)[1], term.attention, strict=True)
    for now, then, attention in blocks:
        assert attention is not None
        assert len(attention) == width_of(case, now)
        assert float(attention.sum()) == pytest.approx(len(attention), rel=1e-4)
        axis = 1 if channels_first(case) else -1
        squares = (now - then).square().movedim(axis, 0).flatten(1).mean(dim=1)
        expected += 0.5 / 2 * float((squares * attention).sum())
    assert added == pytest.approx(expected, rel=1e-3)


@every_family
def test_miro(case: Case) -> None:
    before, student, loss, added = after_training(case, Miro(weight=0.2))
    embedding, blocks = outputs(case, student)
    old_embedding, old_blocks = outputs(case, before)
    last_of_quarters = sorted({max(0, round(len(blocks) * quarter / 4) - 1) for quarter in (1, 2, 3, 4)})
    pairs = [(embedding, old_embedding), *((blocks[i], old_blocks[i]) for i in last_of_quarters)]
    expected = sum(0.2 / 2 * float(((now - then).square() / 0.1 + np.log(0.1)).mean()) for now, then in pairs)
    assert added == pytest.approx(expected, rel=1e-3)
    widths = sum(width_of(case, blocks[i]) for i in last_of_quarters)
    first = embedding.shape[1 if channels_first(case) or case.family == "Swin V2 (CR)" else -1]
    assert sum(parameter.numel() for parameter in loss.parameters) == first + widths


def channels_first(case: Case) -> bool:
    return case.family.startswith(("MaxViT", "CoAtNet"))


def width_of(case: Case, output: Tensor) -> int:
    return output.shape[1 if channels_first(case) else -1]
