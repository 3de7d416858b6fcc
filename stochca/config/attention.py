"""Stochastic cross-attention: how blocks attend while training."""

from dataclasses import dataclass, field
from typing import Literal

from stochca.config.options import Attention, Options
from stochca.config.registry import register
from stochca.config.training import require, require_each


@dataclass(frozen=True)
class Schedule(Options):
    """How the probability of cross-attention changes while training; a function of the step alone.

    constant: it does not (the paper's). linear, cosine: from `prob` at the first step to `end` at the last,
    so that training finishes in the state that evaluation uses. warmup: from 0 up to `prob` over the first
    `share` of the steps, so that a fresh head first learns from undisturbed features.
    """

    name: Literal["constant", "linear", "cosine", "warmup"] = "constant"
    end: float | None = None  # of linear and cosine; None: 0
    share: float | None = None  # of warmup; None: 0.1

    def __post_init__(self) -> None:
        names = ("constant", "linear", "cosine", "warmup")
        require(self.name in names, f"schedule must be one of {', '.join(names)}, found {self.name!r}")
        for name, value, owners in (
            ("end", self.end, ("linear", "cosine")),
            ("share", self.share, ("warmup",)),
        ):
            require(
                value is None or self.name in owners,
                f"{name} belongs to the schedule {' or '.join(owners)}, found {self.name}; leave it out",
            )
        require_each(self, lambda p: 0 <= p <= 1, "between 0 and 1", "end")
        require_each(self, lambda x: 0 < x <= 1, "above 0 and at most 1, a share of the steps", "share")


@dataclass(frozen=True)
class StochasticCrossAttention(Attention):
    """Each block, with probability `prob`, attends to the frozen pretrained model (arXiv 2402.16092).

    The defaults are the paper's; what goes beyond it is off.
    """

    needs_changing_backbone = "nothing that attends is trained"
    name: Literal["stochca"] = "stochca"
    prob: float | tuple[float, ...] = 0.1  # one value, or one per block
    granularity: Literal["block", "sample"] = "block"  # one draw for the batch, or one per image: less noise
    blocks: tuple[int, ...] | None = None  # those that may cross-attend, from 0; None: all
    schedule: Schedule = field(default_factory=Schedule)
    teacher: str | None = None  # a name in `teachers` of params.yaml; None: the backbone itself
    # What the teacher computes in. auto: bf16 beside a student in fp32 where the device does so natively,
    # else as the student.
    teacher_precision: Literal["auto", "same", "bf16"] = "auto"

    def __post_init__(self) -> None:
        require(self.blocks != (), "blocks must name one block or more, found none; null means all")
        require_each(self, lambda i: i >= 0, "counted from 0", "blocks")
        require(self.prob != (), "prob must be one probability, or one per block, found none")
        require_each(self, lambda p: 0 <= p <= 1, "between 0 and 1", "prob")


register(StochasticCrossAttention, "stochca.attention.attending:CrossAttending")
