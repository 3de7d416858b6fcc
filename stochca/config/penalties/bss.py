"""Batch spectral shrinkage."""

from dataclasses import dataclass
from typing import Literal

from stochca.config.options import Penalty
from stochca.config.registry import register
from stochca.config.training import Training, require, require_each


@dataclass(frozen=True)
class Bss(Penalty):
    """Suppress the smallest singular values of a batch's features (Chen et al., NeurIPS 2019)."""

    name: Literal["bss"] = "bss"
    weight: float = 0.001  # its scale depends on the batch size
    k: int = 1  # how many singular values

    def __post_init__(self) -> None:
        require_each(self, lambda x: x >= 0, "0 or more", "weight")
        require_each(self, lambda n: n >= 1, "1 or more", "k")

    def check_training(self, settings: Training, *, micro_batch: int, refit: bool) -> None:
        require(
            self.k <= micro_batch,
            f"penalties bss takes the {self.k} smallest singular values (k) of a micro-batch, which has only "
            f"{micro_batch} images; raise training.batch_size or lower k",
        )


register(Bss, "stochca.penalties.bss:SmallSingularValues")
