"""The term that teaches TOAST's decoders to be the layers' inverse, beside the cross-entropy.

Σ_i mean[((pass_on_i(gave_i) − given_i) / 10)²] over the layers, of what layer i is given and gives in the
second pass; no gradient flows into those. While a TOAST tunes, what its decoders pass on is frozen, and the
term gives no gradient at all.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

IGNORED = -100  # the label of tokens that are not to be learned


def reconstruction_loss(
    decoders: Iterable[nn.Module],
    given: Sequence[Tensor],
    gave: Sequence[Tensor],
    attention_mask: Tensor | None = None,
) -> Tensor:
    """The term, a scalar.

    Args:
        given: the input of each layer, (B, N, D).
        gave: its output, (B, N, D).
        attention_mask: (B, N); padding plays no part. Masks of other shapes are passed by.
    """
    losses = []
    for decoder, given_BND, gave_BND in zip(decoders, given, gave, strict=True):
        pass_on = decoder.get_submodule("pass_on")
        dtype = next(pass_on.parameters()).dtype
        squares_BN = ((pass_on(gave_BND.to(dtype)) - given_BND.to(dtype)) / 10).float().square().mean(-1)
        if attention_mask is not None and attention_mask.shape == squares_BN.shape:
            squares_BN = squares_BN[attention_mask.bool()]
        losses.append(squares_BN.mean())
    return torch.stack(losses).sum()


def share_of_batch(
    labels: Tensor,
    num_items_in_batch: Tensor | int | None = None,
    shift_labels: Tensor | None = None,
    **_: Any,
) -> Tensor | float:
    """The share of these sequences in the step's loss, where the Trainer accumulates gradients: 1 otherwise.

    The Trainer then divides the cross-entropy by the labels of all that it accumulates; so must be the term.
    """
    if num_items_in_batch is None:
        return 1.0
    learned = labels[..., 1:] if shift_labels is None else shift_labels
    return (learned != IGNORED).sum() / num_items_in_batch
