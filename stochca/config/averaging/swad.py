"""SWAD."""

from dataclasses import dataclass
from typing import Literal

from stochca.config.options import Average
from stochca.config.registry import register
from stochca.config.training import Training, require, require_each


@dataclass(frozen=True)
class Swad(Average):
    """Dense mean of the weights inside the loss valley (Cha et al., NeurIPS 2021)."""

    needs_whole_schedule = True
    name: Literal["swad"] = "swad"
    n_converge: int = 3
    n_tolerance: int = 6
    tolerance_ratio: float = 0.3

    def __post_init__(self) -> None:
        require_each(self, lambda n: n >= 1, "1 or more", "n_converge", "n_tolerance")
        require_each(self, lambda x: x >= 0, "0 or more", "tolerance_ratio")

    def check_training(self, settings: Training, *, micro_batch: int, refit: bool) -> None:
        require(
            not refit,
            "average swad chooses its steps by the validation loss, of which refit leaves none; set refit to "
            "false, or choose another average",
        )


register(Swad, "stochca.averaging.swad:ValleyAverage")
