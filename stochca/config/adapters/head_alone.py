"""Linear probing."""

from dataclasses import dataclass
from typing import Literal

from stochca.config.options import Adapter
from stochca.config.registry import register
from stochca.config.training import Training, require


@dataclass(frozen=True)
class HeadAlone(Adapter):
    """Linear probing: the head alone learns."""

    changes_backbone = False
    name: Literal["head"] = "head"

    def check_training(self, settings: Training, *, micro_batch: int, refit: bool) -> None:
        require(
            settings.head_lr_scale != 0,
            "training.head_lr_scale 0 with adapter 'head' trains nothing; set it to 1",
        )


register(HeadAlone, "stochca.adapters.head_alone:HeadOnly")
