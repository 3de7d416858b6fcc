"""Stochastic weight averaging."""

from dataclasses import dataclass
from typing import Literal

from stochca.config.options import Average
from stochca.config.registry import register
from stochca.config.training import require_each


@dataclass(frozen=True)
class Swa(Average):
    """Uniform mean of the weights over the last part of training (Izmailov et al., UAI 2018)."""

    needs_whole_schedule = True
    name: Literal["swa"] = "swa"
    start: float = 0.75  # the share of the steps after which averaging starts

    def __post_init__(self) -> None:
        require_each(self, lambda x: 0 <= x < 1, "at least 0 and below 1", "start")


register(Swa, "stochca.averaging.swa:TailAverage")
