"""Visual prompt tuning."""

from dataclasses import dataclass
from typing import Literal

from stochca.config.options import Adapter
from stochca.config.registry import register
from stochca.config.training import require_each


@dataclass(frozen=True)
class Vpt(Adapter):
    """Visual prompt tuning: prompt tokens and the head learn (Jia et al., ECCV 2022, arXiv 2203.12119)."""

    changes_backbone = False
    adds_weights = True
    name: Literal["vpt"] = "vpt"
    tokens: int = 5
    deep: bool = True  # new prompts before every block; false: before the first alone
    dropout: float = 0.0  # of the prompts

    def __post_init__(self) -> None:
        require_each(self, lambda n: n >= 1, "1 or more", "tokens")
        require_each(self, lambda x: 0 <= x < 1, "at least 0 and below 1", "dropout")


register(Vpt, "stochca.adapters.vpt:Prompted")
