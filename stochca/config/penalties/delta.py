"""DELTA."""

from dataclasses import dataclass
from typing import Literal

from stochca.config.options import Penalty, require_not_negative
from stochca.config.registry import register
from stochca.config.training import require


@dataclass(frozen=True)
class Delta(Penalty):
    """Keep the block outputs of the pretrained model (Li et al., ICLR 2019, applied to a transformer)."""

    asks_pretrained = True
    name: Literal["delta"] = "delta"
    weight: float = 0.01
    attention: bool = True  # channels without which the loss would rise more count more
    images: int = 256  # training images by which the attention is found

    def __post_init__(self) -> None:
        require_not_negative(self, "weight")
        require(self.images >= 1, f"images must be 1 or more, found {self.images}")


register(Delta, "stochca.penalties.delta:KeptOutputs")
