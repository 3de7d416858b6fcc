"""The axes of the page's figures, which templates/figures.html draws."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Maps values to 0-100 % of an axis, and knows its ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def around(cls, values: Sequence[float], ticks: int = 5, margin: float = 0.06) -> "Scale":
        """An axis that holds the values and a margin, with about so many round ticks."""
        low, high = min(values), max(values)
        extent = high - low or abs(high) or 1.0
        step = _round_step(extent / ticks)
        low, high = low - margin * extent, high + margin * extent
        first, last = math.ceil(low / step), math.floor(high / step)
        return cls(low, high, tuple(round(index * step, 10) for index in range(first, last + 1)))

    def percent(self, value: float) -> float:
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    def share(self, value: float) -> str:
        """As a length in SVG: ``12.5%``."""
        return f"{self.percent(value):g}%"

    def height(self, value: float, pixels: int) -> float:
        """From the top of a figure that is so many pixels high."""
        return round(pixels * (1 - self.percent(value) / 100), 1)


def _round_step(step: float) -> float:
    """The next larger of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))
