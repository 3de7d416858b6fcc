"""What TOAST hands down to the layers in its two passes, and takes from them.

Shapes: B sequences, N tokens, D channels.
"""

from typing import Any

from torch import Tensor

from stochca.language.handing_down import HandedDown


class FirstPass(HandedDown):
    """Keeps what the last layer gave, (B, N, D)."""

    last_BND: Tensor

    def from_layer(self, given_BND: Tensor, gave_BND: Tensor) -> None:
        self.last_BND = gave_BND


class SecondPass(HandedDown):
    """Tells each layer's values what its decoder emitted; keeps what the layers are given and give."""

    def __init__(self, emitted: list[Tensor], recorded: bool = False) -> None:
        self.emitted = emitted
        self.recorded = recorded
        self.given: list[Tensor] = []
        self.gave: list[Tensor] = []

    def to_attention(self, index: int, arguments: dict[str, Any]) -> Tensor:
        return self.emitted[index]

    def from_layer(self, given_BND: Tensor, gave_BND: Tensor) -> None:
        if self.recorded:
            self.given.append(given_BND.detach())
            self.gave.append(gave_BND.detach())
