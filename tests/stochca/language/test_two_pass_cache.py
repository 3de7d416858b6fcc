"""Keys and values of both passes."""

import pytest
import torch

from stochca.language.two_pass_cache import TwoPassCache
from tests.stochca.language.slow_reference import toast_by_hand
from tests.stochca.language.tiny import FAMILIES, lively_toast, tiny_model, tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_token_by_token_equals_both_passes_by_hand(family: str) -> None:
    toast = lively_toast(tiny_model(family))
    sequence = tokens(1, 12)
    by_hand = toast_by_hand(toast, sequence[0])[1].logits
    cache = None
    logits = []
    for part in sequence.split([5, 1, 1, 2, 1, 1, 1], dim=1):
        output = toast(part, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        logits.append(output.logits)
    torch.testing.assert_close(torch.cat(logits, dim=1)[0], by_hand, rtol=1e-4, atol=1e-4)
    assert isinstance(cache, TwoPassCache)
    assert cache.get_seq_length() == cache.first.get_seq_length() == 12


def test_what_is_done_to_one_cache_is_done_to_both() -> None:
    toast = lively_toast(tiny_model())
    cache = toast(tokens(2), use_cache=True).past_key_values
    second, first = cache.layers[0].keys.clone(), cache.first.layers[0].keys.clone()
    cache.batch_repeat_interleave(2)
    cache.reorder_cache(torch.tensor([2, 0, 1, 3]))
    cache.batch_select_indices(torch.tensor([0, 1]))
    cache.crop(-3)
    for part, before in ((cache, second), (cache.first, first)):
        assert part.layers[0].keys.equal(before[[1, 0]][:, :, :-3])
    cache.reset()
    assert cache.get_seq_length() == cache.first.get_seq_length() == 0
