"""Every part of a model gets its own mode back, whatever asked it something."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import stochca
from stochca._typing import TimmModule
from stochca.analysis import attention_maps, block_features
from stochca.compute.modes import evaluating
from stochca.evaluation import predict
from tests.stochca.tiny import PREPROCESSING, ColouredSquares, tiny_vit

PICTURES = torch.randn(2, 3, 16, 16)


def partly_frozen() -> TimmModule:
    """As people train: the blocks of a frozen bottom stay in evaluation mode, dropout above is on."""
    model = tiny_vit().train()
    model.blocks[0].eval()
    model.norm.eval()
    return model


def modes(model: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in model.named_modules()}


def ask_averaged_predictions(model: TimmModule) -> None:
    wrapped = stochca.StochCA(model, 0.5)
    stochca.averaged_predictions(wrapped, PICTURES, 2)
    assert wrapped.training


def ask_predict(model: TimmModule) -> None:
    predict(model, ColouredSquares(2), PREPROCESSING, device=torch.device("cpu"))


ASKED: dict[str, Callable[[TimmModule], object]] = {
    "averaged_predictions": ask_averaged_predictions,
    "predict": ask_predict,
    "block_features": lambda model: block_features(model, PICTURES),
    "attention_maps": lambda model: attention_maps(model, PICTURES),
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_every_part_gets_its_own_mode_back(ask: Callable[[TimmModule], object]) -> None:
    model = partly_frozen()
    before = modes(model)
    assert set(before.values()) == {True, False}
    ask(model)
    assert modes(model) == before


def test_the_top_may_be_in_evaluation_mode_above_parts_that_train() -> None:
    model = tiny_vit().eval()
    model.head.train()
    before = modes(model)
    with evaluating(model):
        assert not any(modes(model).values())
    assert modes(model) == before


def test_modes_are_put_back_after_an_error() -> None:
    model = partly_frozen()
    before = modes(model)
    with pytest.raises(AssertionError):
        block_features(model, torch.randn(2, 3, 24, 24))
    assert modes(model) == before


def test_a_frozen_backbone_stays_in_evaluation_mode() -> None:
    model = stochca.VPT(tiny_vit()).train()
    before = modes(model)
    predict(model, ColouredSquares(2), PREPROCESSING, device=torch.device("cpu"))
    assert modes(model) == before
    assert not before["backbone"]
    assert before["backbone.head"]
