"""Stochastic weight averaging."""

from dataclasses import dataclass
from typing import Literal

from stochca.config.options import Average
from stochca.config.registry import register
from stochca.config.training import require


@dataclass(frozen=True)
class Swa(Average):
    """Uniform mean of the weights over the last part of training (Izmailov et al., UAI 2018)."""

    name: Literal["swa"] = "swa"
    start: float = 0.75  # the share of the steps after which averaging starts

    def __post_init__(self) -> None:
        require(0 <= self.start < 1, f"start must be at least 0 and below 1, found {self.start}")


register(Swa, "stochca.averaging.swa:TailAverage")
