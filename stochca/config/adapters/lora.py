"""LoRA."""

from dataclasses import dataclass
from typing import Literal

from stochca.config.options import Adapter
from stochca.config.registry import register
from stochca.config.training import require


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
        require(self.rank >= 1, f"rank must be 1 or more, found {self.rank}")
        require(self.alpha > 0, f"alpha must be above 0, found {self.alpha}")
        require(0 <= self.dropout < 1, f"dropout must be at least 0 and below 1, found {self.dropout}")
        require(len(self.targets) > 0, "targets must name one layer or more, found none")


register(Lora, "stochca.adapters.lora:LowRank")
