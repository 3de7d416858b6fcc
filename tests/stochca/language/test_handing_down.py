"""What reaches the layers."""

from typing import Any

import pytest
import torch

from stochca.language.handing_down import ARGUMENT, HandedDown, receive
from tests.stochca.language.tiny import FAMILIES, LAYERS, tiny_model, tokens


class Nosy(HandedDown):
    def __init__(self) -> None:
        self.attentions: list[int] = []
        self.layers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def to_attention(self, index: int, arguments: dict[str, Any]) -> None:
        self.attentions.append(index)
        assert ARGUMENT not in arguments

    def from_layer(self, given_BND: torch.Tensor, gave_BND: torch.Tensor) -> None:
        self.layers.append((given_BND, gave_BND))


@pytest.mark.parametrize("family", FAMILIES)
def test_it_reaches_each_layer_once_however_often_that_is_asked_for(family: str) -> None:
    model = tiny_model(family)
    expected = model(tokens(), output_hidden_states=True)
    receive(model)
    receive(model)
    nosy = Nosy()
    assert model(tokens(), **{ARGUMENT: nosy}).logits.equal(expected.logits)
    assert nosy.attentions == list(range(LAYERS))
    for (given, gave), before, after in zip(
        nosy.layers, expected.hidden_states, expected.hidden_states[1:], strict=False
    ):
        assert given.equal(before)
        assert after is expected.hidden_states[-1] or gave.equal(after)


class Telling(HandedDown):
    def to_attention(self, index: int, arguments: dict[str, Any]) -> torch.Tensor:
        return torch.ones(2, 9, 16)


def test_values_are_told_in_that_pass_alone() -> None:
    model = tiny_model()
    receive(model)
    expected = model(tokens()).logits
    project, hidden = model.model.layers[-1].self_attn.v_proj, torch.randn(2, 9, 16)
    assert (model(tokens(), **{ARGUMENT: Telling()}).logits - expected).abs().max() > 0.01
    torch.testing.assert_close(project(hidden), hidden @ project.weight.T)
    assert model(tokens()).logits.equal(expected)


def test_a_pass_that_fails_leaves_nothing_behind() -> None:
    model = tiny_model()
    receive(model)
    expected = model(tokens()).logits

    handle = model.model.layers[1].self_attn.k_proj.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(tokens(), **{ARGUMENT: Telling()})
    handle.remove()
    assert model(tokens()).logits.equal(expected)
