"""What TOAST's second pass attends to, beside the first: the numbers of the page's picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from examples.language.text.encoding import Example
from stochca.language import TOAST

LENGTH = 32  # tokens that still can be read beside a picture


@dataclass(frozen=True)
class Steering:
    """Attention of one answer, whose tokens ask (rows) about all tokens before them (columns).

    `first` and `second` (N, N) are means over layers and heads; `by_layer` is the share of its attention that
    a layer's second pass has put elsewhere, the mean over heads and the answer's tokens.
    """

    tokens: list[str]
    answer_from: int  # the first row that asks for the answer
    first: list[list[float]]
    second: list[list[float]]
    by_layer: list[float]


def steering(toast: TOAST, tokenizer: Any, examples: Sequence[Example], device: torch.device) -> Steering:
    """Of the example that is closest to `LENGTH` tokens."""
    example = min(examples, key=lambda each: abs(len(each.prompt_tokens) + len(each.answer_tokens) - LENGTH))
    tokens = example.prompt_tokens + example.answer_tokens
    input_ids = torch.tensor([tokens], device=device)
    first, second = (
        maps[:, 0].float().cpu() for maps in toast.eval().attention_maps(input_ids)
    )  # (L, H, N, N)
    begins = len(example.prompt_tokens) - 1  # where the answer's first token is asked for
    moved = (second - first)[:, :, begins:].abs().sum(-1) / 2
    return Steering(
        [tokenizer.decode([token]) for token in tokens],
        begins,
        first.mean((0, 1)).tolist(),
        second.mean((0, 1)).tolist(),
        moved.mean((1, 2)).tolist(),
    )
