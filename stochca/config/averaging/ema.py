"""An exponential moving average."""

from dataclasses import dataclass
from typing import Literal

from stochca.config.options import Average
from stochca.config.registry import register
from stochca.config.training import require


@dataclass(frozen=True)
class Ema(Average):
    """Exponential moving average of the weights; its own best on the validation split is kept."""

    name: Literal["ema"] = "ema"
    decay: float = 0.99

    def __post_init__(self) -> None:
        require(0 < self.decay < 1, f"decay must be between 0 and 1, both excluded, found {self.decay}")


register(Ema, "stochca.averaging.ema:ExponentialAverage")
