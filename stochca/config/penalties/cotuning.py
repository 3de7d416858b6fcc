"""Co-Tuning."""

from dataclasses import dataclass
from typing import Literal

from stochca.config.options import Penalty
from stochca.config.registry import register
from stochca.config.training import require_each


@dataclass(frozen=True)
class CoTuning(Penalty):
    """Train the source classifier too, on source labels that suit the target's (You et al., NeurIPS 2020)."""

    needs_source_head = True
    name: Literal["cotuning"] = "cotuning"
    weight: float = 2.3

    def __post_init__(self) -> None:
        require_each(self, lambda x: x >= 0, "0 or more", "weight")


register(CoTuning, "stochca.penalties.cotuning:CoTrainedSource")
