"""What is black and what is white among grey values of more than 8 bits; the same for all of a set.

A camera's 12 bits lie in files of 16, and floating-point numbers have no white at all. So whole numbers are
taken for as many bits as the largest of the set needs. What is negative or floating-point reaches from the
lowest to the highest of the set.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Levels = Mapping[str, Sequence[float]]  # black and white, by the kind of numbers; as it stands in JSON

WHOLE, FLOAT = "whole numbers", "floating-point numbers"
LEAST_BITS = 8  # fewer are as dark as they would be in a file of 8 bits


class Span(NamedTuple):
    """What the values of an image lie between."""

    kind: str  # WHOLE or FLOAT
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Span":
        kind = FLOAT if values.dtype.kind == "f" else WHOLE
        return cls(kind, float(values.min()), float(values.max()))

    def is_within(self, levels: Levels) -> bool:
        black, white = levels[self.kind]
        return black <= self.low and self.high <= white

    def __str__(self) -> str:
        return f"{self.kind} from {self.low:g} to {self.high:g}"


def levels_of(spans: Iterable[Span]) -> Levels:
    """The levels of all images together."""
    ends: dict[str, Sequence[float]] = {}
    for kind, low, high in joined(spans):
        if kind == WHOLE and low >= 0:
            ends[kind] = [0, 2 ** max(LEAST_BITS, int(high).bit_length()) - 1]
        else:
            ends[kind] = [low, high]
    return ends


def joined(spans: Iterable[Span]) -> list[Span]:
    """One for each kind."""
    lows: dict[str, float] = {}
    highs: dict[str, float] = {}
    for kind, low, high in spans:
        lows[kind], highs[kind] = min(low, lows.get(kind, low)), max(high, highs.get(kind, high))
    return [Span(kind, lows[kind], highs[kind]) for kind in lows]


def to_8_bits(values: np.ndarray, levels: Levels) -> np.ndarray:
    """Rounded to the nearest; what is beyond black or white is cut."""
    black, white = levels[Span.of(values).kind]
    exact: np.ndarray = values.astype(np.float32 if values.itemsize <= 2 else np.float64)
    scaled = np.subtract(exact, black) * (255 / max(white - black, 1e-12))
    return scaled.round().clip(0, 255).astype(np.uint8)
