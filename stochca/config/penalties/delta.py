"""DELTA."""

from dataclasses import dataclass
from typing import Literal

from stochca.config.options import Penalty
from stochca.config.registry import register
from stochca.config.training import require_each


@dataclass(frozen=True)
class Delta(Penalty):
    """Keep the block outputs of the pretrained model (Li et al., ICLR 2019, applied to a transformer)."""

    asks_pretrained = True
    name: Literal["delta"] = "delta"
    weight: float = 0.01
    attention: bool = True  # channels without which the loss would rise more count more
    images: int = 256  # training images, spread evenly over all, by which the attention is found

    def __post_init__(self) -> None:
        require_each(self, lambda x: x >= 0, "0 or more", "weight")
        require_each(self, lambda n: n >= 1, "1 or more", "images")


register(Delta, "stochca.penalties.delta:KeptOutputs")
