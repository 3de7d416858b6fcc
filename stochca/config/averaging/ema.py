"""An exponential moving average."""

from dataclasses import dataclass
from typing import Literal

from stochca.config.options import Average
from stochca.config.registry import register
from stochca.config.training import require_each


@dataclass(frozen=True)
class Ema(Average):
    """Exponential moving average of the weights; its own best on the validation split is kept."""

    name: Literal["ema"] = "ema"
    decay: float = 0.99

    def __post_init__(self) -> None:
        require_each(self, lambda x: 0 < x < 1, "between 0 and 1, both excluded", "decay")


register(Ema, "stochca.averaging.ema:ExponentialAverage")
