"""Top-down attention, in two sizes."""

from dataclasses import dataclass
from typing import Literal

from stochca.config.options import Adapter
from stochca.config.registry import register
from stochca.config.training import require_each


@dataclass(frozen=True)
class Toast(Adapter):
    """Top-down attention: decoders, a task vector and the head learn (Shi et al., arXiv 2305.15542)."""

    changes_backbone = False
    adds_weights = True
    name: Literal["toast"] = "toast"
    decoders: str | None = None  # a file of pre-tuned decoders; None: they start at random


@dataclass(frozen=True)
class ToastLite(Adapter):
    """TOAST-Lite: low-rank updates of the decoders, the task vector, its transform and the head learn."""

    changes_backbone = False
    adds_weights = True
    name: Literal["toast_lite"] = "toast_lite"
    decoders: str | None = None  # as for `Toast`
    rank: int = 4
    alpha: float = 4.0  # the update counts alpha / rank

    def __post_init__(self) -> None:
        require_each(self, lambda n: n >= 1, "1 or more", "rank")
        require_each(self, lambda x: x > 0, "above 0", "alpha")


register(Toast, "stochca.adapters.toast:TopDown")
register(ToastLite, "stochca.adapters.toast:TopDown")
