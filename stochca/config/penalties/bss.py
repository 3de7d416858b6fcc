"""Batch spectral shrinkage."""

from dataclasses import dataclass
from typing import Literal

from stochca.config.options import Penalty, require_not_negative
from stochca.config.registry import register
from stochca.config.training import Training, require


@dataclass(frozen=True)
class Bss(Penalty):
    """Suppress the smallest singular values of a batch's features (Chen et al., NeurIPS 2019)."""

    name: Literal["bss"] = "bss"
    weight: float = 0.001  # its scale depends on the batch size
    k: int = 1  # how many singular values

    def __post_init__(self) -> None:
        require_not_negative(self, "weight")
        require(self.k >= 1, f"k must be 1 or more, found {self.k}")

    def check_training(self, settings: Training, *, micro_batch: int, refit: bool) -> None:
        require(
            self.k <= micro_batch,
            f"penalties bss takes the {self.k} smallest singular values (k) of a micro-batch, which has only "
            f"{micro_batch} images; raise training.batch_size or lower k",
        )


register(Bss, "stochca.penalties.bss:SmallSingularValues")
