"""MIRO."""

from dataclasses import dataclass
from typing import Literal

from stochca.config.options import Penalty
from stochca.config.registry import register
from stochca.config.training import require_each


@dataclass(frozen=True)
class Miro(Penalty):
    """Keep the mutual information with the pretrained features (Cha et al., ECCV 2022)."""

    asks_pretrained = True
    name: Literal["miro"] = "miro"
    weight: float = 0.1  # from 0.01 to 1 by dataset
    lr_scale: float = 10.0  # the learning rate of the variances is lr times this

    def __post_init__(self) -> None:
        require_each(self, lambda x: x >= 0, "0 or more", "weight", "lr_scale")


register(Miro, "stochca.penalties.miro:SharedInformation")
