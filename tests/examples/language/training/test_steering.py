import numpy as np
import pytest
import torch

from examples.language.text.encoding import Example
from examples.language.training.steering import steering
from stochca.language import TOAST
from tests.examples.language.tiny import make_model, make_tokenizer

EXAMPLES = [
    Example("0", "test", "g", "q", "a", [3, 9, 2, 4], [9, 2]),
    Example("1", "test", "g", "q", "a", [3, *range(9, 30), 2, 4], [9, 10, 2]),
]


def test_attention_moves_where_there_is_feedback() -> None:
    model = make_model()
    for layer in model.model.layers:  # which else hardly tells one token from another
        layer.self_attn.q_proj.weight.data *= 50
        layer.self_attn.k_proj.weight.data *= 50
    toast = TOAST(model, plain_start=True)
    still = steering(toast, make_tokenizer(), EXAMPLES, torch.device("cpu"))
    assert len(still.tokens) == 27  # the one that is closest to 32
    assert still.by_layer == pytest.approx([0, 0], abs=1e-6)
    for decoder in toast.decoders:
        torch.nn.init.normal_(decoder.get_parameter("emit.weight"), std=100)
    moved = steering(toast, make_tokenizer(), EXAMPLES, torch.device("cpu"))
    first, second = np.array(moved.first), np.array(moved.second)
    assert np.allclose(first, still.first)
    for maps in (first, second):
        assert maps.shape == (27, 27)
        assert np.allclose(maps.sum(axis=1), 1, atol=1e-5)
        assert np.allclose(np.triu(maps, 1), 0)  # nothing later is attended to
    assert moved.by_layer[0] == pytest.approx(0, abs=1e-6)  # its queries and keys know of no feedback
    assert moved.by_layer[1] > 1e-3
    assert moved.tokens[moved.answer_from] == "<assistant>"
