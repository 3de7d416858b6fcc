"""What learns: everything, the head alone, or an adapter and the head."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from stochca.config.options import Adapter
from stochca.config.training import require


@dataclass(frozen=True)
class AllWeights(Adapter):
    """Every parameter learns."""

    name: Literal["all"] = "all"


@dataclass(frozen=True)
class HeadAlone(Adapter):
    """Linear probing: the head alone learns."""

    changes_backbone: ClassVar[bool] = False
    name: Literal["head"] = "head"


@dataclass(frozen=True)
class Lora(Adapter):
    """Low-rank updates of some linear layers, and the head (Hu et al., ICLR 2022, arXiv 2106.09685)."""

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


@dataclass(frozen=True)
class Vpt(Adapter):
    """Visual prompt tuning: prompt tokens and the head learn (Jia et al., ECCV 2022, arXiv 2203.12119)."""

    changes_backbone: ClassVar[bool] = False
    name: Literal["vpt"] = "vpt"
    tokens: int = 5
    deep: bool = True  # new prompts before every block; false: before the first alone
    dropout: float = 0.0  # of the prompts

    def __post_init__(self) -> None:
        require(self.tokens >= 1, f"tokens must be 1 or more, found {self.tokens}")
        require(0 <= self.dropout < 1, f"dropout must be at least 0 and below 1, found {self.dropout}")


@dataclass(frozen=True)
class Toast(Adapter):
    """Top-down attention: decoders, a task vector and the head learn (Shi et al., arXiv 2305.15542)."""

    changes_backbone: ClassVar[bool] = False
    name: Literal["toast"] = "toast"
    decoders: str | None = None  # a file of pre-tuned decoders; None: they start at random


@dataclass(frozen=True)
class ToastLite(Adapter):
    """TOAST-Lite: low-rank updates of the decoders, the task vector, its transform and the head learn."""

    changes_backbone: ClassVar[bool] = False
    name: Literal["toast_lite"] = "toast_lite"
    decoders: str | None = None  # as for `Toast`
    rank: int = 4
    alpha: float = 4.0  # the update counts alpha / rank

    def __post_init__(self) -> None:
        require(self.rank >= 1, f"rank must be 1 or more, found {self.rank}")
        require(self.alpha > 0, f"alpha must be above 0, found {self.alpha}")
