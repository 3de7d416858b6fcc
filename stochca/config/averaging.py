"""Which weights are kept."""

from dataclasses import dataclass
from typing import Literal

from stochca.config.options import Average
from stochca.config.training import require


@dataclass(frozen=True)
class NoAverage(Average):
    """Keep the weights that were best on the validation split."""

    name: Literal["none"] = "none"


@dataclass(frozen=True)
class Ema(Average):
    """Exponential moving average of the weights; its own best on the validation split is kept."""

    name: Literal["ema"] = "ema"
    decay: float = 0.99

    def __post_init__(self) -> None:
        require(0 < self.decay < 1, f"decay must be between 0 and 1, both excluded, found {self.decay}")


@dataclass(frozen=True)
class Swa(Average):
    """Uniform mean of the weights over the last part of training (Izmailov et al., UAI 2018)."""

    name: Literal["swa"] = "swa"
    start: float = 0.75  # the share of the steps after which averaging starts

    def __post_init__(self) -> None:
        require(0 <= self.start < 1, f"start must be at least 0 and below 1, found {self.start}")


@dataclass(frozen=True)
class Swad(Average):
    """Dense mean of the weights inside the loss valley (Cha et al., NeurIPS 2021)."""

    name: Literal["swad"] = "swad"
    n_converge: int = 3
    n_tolerance: int = 6
    tolerance_ratio: float = 0.3

    def __post_init__(self) -> None:
        for name in ("n_converge", "n_tolerance"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be 1 or more, found {value}")
        require(self.tolerance_ratio >= 0, f"tolerance_ratio must be 0 or more, found {self.tolerance_ratio}")


@dataclass(frozen=True)
class WiseFt(Average):
    """Between the weights at the first step and the fine-tuned ones (Wortsman et al., CVPR 2022).

    `alpha` 0 gives the start, 1 what fine-tuning alone would keep. Of several, the best on the validation
    split is kept. It makes models that hold where images differ from the training images, and needs a head
    that a first phase has made.
    """

    name: Literal["wise_ft"] = "wise_ft"
    alpha: float | tuple[float, ...] = 0.5

    @property
    def alphas(self) -> tuple[float, ...]:
        return self.alpha if isinstance(self.alpha, tuple) else (self.alpha,)

    def __post_init__(self) -> None:
        require(self.alphas != (), "alpha must be one value or more, found none")
        for alpha in self.alphas:
            require(0 <= alpha <= 1, f"alpha must be between 0 and 1, found {alpha}")
