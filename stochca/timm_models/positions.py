"""Positions of an attention layer's tokens, from which further tokens at their front are left out.

Where positions are added to the tokens before the blocks, attention knows none. Other families rotate
queries and keys, or add a bias to each pair of tokens: further tokens are not rotated, and the bias of a
pair with one of them is 0.

Shapes: N tokens, F further ones.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from stochca._typing import TimmModule
from stochca.timm_models.key_value import swapped

Arguments = dict[str, Any]

# (attention layer, F, arguments of its block) to those that suit F + N tokens, for the duration of a context.
Positions = Callable[[TimmModule, int, Arguments], AbstractContextManager[Arguments]]


@contextmanager
def no_positions(attention: TimmModule, further: int, arguments: Arguments) -> Iterator[Arguments]:
    """The tokens had theirs before the first block."""
    yield arguments


@contextmanager
def rotary_positions(attention: TimmModule, further: int, arguments: Arguments) -> Iterator[Arguments]:
    """Rotations begin after the class token and registers; further tokens count as such."""
    attention.num_prefix_tokens += further
    try:
        yield arguments
    finally:
        attention.num_prefix_tokens -= further


@dataclass(frozen=True)
class RelativePositions:
    """Biases of the layer's own, and of all blocks together, given to the block as an argument.

    Attributes:
        own: the layer's part that its own bias comes from.
        own_bias: the layer to its bias (1, heads, N, N).
        shared: the argument's name; what is given there is used as it is by a layer without a bias.
    """

    own: str
    own_bias: Callable[[TimmModule], Tensor]
    shared: str

    @contextmanager
    def __call__(self, attention: TimmModule, further: int, arguments: Arguments) -> Iterator[Arguments]:
        bias = arguments.get(self.shared)
        swapped_out = {}
        if getattr(attention, self.own) is not None:
            own = self.own_bias(attention)
            bias = own if bias is None else own + bias
            swapped_out = {self.own: None}
        if bias is not None:
            bias = functional.pad(bias, (further, 0, further, 0))
        with swapped(attention, **swapped_out):
            yield {**arguments, self.shared: bias}
