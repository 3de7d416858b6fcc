"""L2-SP."""

from dataclasses import dataclass
from typing import Any, Literal

from stochca.config.options import Penalty
from stochca.config.registry import register
from stochca.config.training import require, require_each


@dataclass(frozen=True)
class L2Sp(Penalty):
    """Stay near the pretrained weights (Li et al., ICML 2018); takes the place of weight decay."""

    name: Literal["l2sp"] = "l2sp"
    weight: float = 0.01  # of half the squared distance of the backbone from its start
    head_weight: float = 0.01  # of half the squared norm of the head

    def __post_init__(self) -> None:
        require_each(self, lambda x: x >= 0, "0 or more", "weight", "head_weight")

    def check(self, method: Any) -> None:
        require(
            not method.adapter.adds_weights,
            f"penalties 'l2sp' with adapter {method.adapter.name!r} makes no sense: it measures from where "
            "weights start, and an adapter's start at random; use adapter 'all', or another penalty",
        )


register(L2Sp, "stochca.penalties.l2sp:StartingPoint")
