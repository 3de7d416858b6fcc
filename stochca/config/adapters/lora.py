"""LoRA."""

from dataclasses import dataclass
from typing import Literal

from stochca.config.options import Adapter
from stochca.config.registry import register
from stochca.config.training import require, require_each


@dataclass(frozen=True)
class Lora(Adapter):
    """Low-rank updates of some linear layers, and the head (Hu et al., ICLR 2022, arXiv 2106.09685)."""

    adds_weights = True
    name: Literal["lora"] = "lora"
    rank: int = 8
    alpha: float = 16.0  # the update counts alpha / rank
    dropout: float = 0.0  # of the update's input
    targets: tuple[str, ...] = ("qkv",)  # ends of the layers' names: qkv (also where it is three), attn.proj

    def __post_init__(self) -> None:
        require_each(self, lambda n: n >= 1, "1 or more", "rank")
        require_each(self, lambda x: x > 0, "above 0", "alpha")
        require_each(self, lambda x: 0 <= x < 1, "at least 0 and below 1", "dropout")
        require(len(self.targets) > 0, "targets must name one layer or more, found none")


register(Lora, "stochca.adapters.lora:LowRank")
