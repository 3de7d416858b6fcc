"""Terms added to the loss."""

from dataclasses import dataclass
from typing import Literal

from stochca.config.options import Penalty, require_not_negative
from stochca.config.training import require


@dataclass(frozen=True)
class L2Sp(Penalty):
    """Stay near the pretrained weights (Li et al., ICML 2018); takes the place of weight decay."""

    name: Literal["l2sp"] = "l2sp"
    weight: float = 0.01  # of half the squared distance of the backbone from its start
    head_weight: float = 0.01  # of half the squared norm of the head

    def __post_init__(self) -> None:
        require_not_negative(self, "weight", "head_weight")


@dataclass(frozen=True)
class Delta(Penalty):
    """Keep the block outputs of the pretrained model (Li et al., ICLR 2019, applied to a transformer)."""

    name: Literal["delta"] = "delta"
    weight: float = 0.01
    attention: bool = True  # channels without which the loss would rise more count more
    images: int = 256  # training images by which the attention is found

    def __post_init__(self) -> None:
        require_not_negative(self, "weight")
        require(self.images >= 1, f"images must be 1 or more, found {self.images}")


@dataclass(frozen=True)
class Bss(Penalty):
    """Suppress the smallest singular values of a batch's features (Chen et al., NeurIPS 2019)."""

    name: Literal["bss"] = "bss"
    weight: float = 0.001  # its scale depends on the batch size
    k: int = 1  # how many singular values

    def __post_init__(self) -> None:
        require_not_negative(self, "weight")
        require(self.k >= 1, f"k must be 1 or more, found {self.k}")


@dataclass(frozen=True)
class CoTuning(Penalty):
    """Train the source classifier too, on source labels that suit the target's (You et al., NeurIPS 2020)."""

    name: Literal["cotuning"] = "cotuning"
    weight: float = 2.3

    def __post_init__(self) -> None:
        require_not_negative(self, "weight")


@dataclass(frozen=True)
class Miro(Penalty):
    """Keep the mutual information with the pretrained features (Cha et al., ECCV 2022)."""

    name: Literal["miro"] = "miro"
    weight: float = 0.1  # from 0.01 to 1 by dataset
    lr_scale: float = 10.0  # the learning rate of the variances is lr times this

    def __post_init__(self) -> None:
        require_not_negative(self, "weight", "lr_scale")
