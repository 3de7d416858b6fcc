"""Plain fine-tuning: what a method does where nothing else is chosen. The bases are its code."""

from dataclasses import dataclass
from typing import Literal

from stochca.config.options import Adapter, Attention, Average, Options, Phases
from stochca.config.registry import register


@dataclass(frozen=True)
class SelfAttention(Attention):
    """Every block attends to itself: ordinary fine-tuning."""

    name: Literal["self"] = "self"


@dataclass(frozen=True)
class AllWeights(Adapter):
    """Every parameter learns."""

    name: Literal["all"] = "all"


@dataclass(frozen=True)
class SinglePhase(Phases):
    """Train everything that trains, from the first step."""

    makes_head = False
    name: Literal["single"] = "single"


@dataclass(frozen=True)
class NoAverage(Average):
    """Keep the weights that were best on the validation split."""

    name: Literal["none"] = "none"


PLAIN: tuple[type[Options], ...] = (SelfAttention, AllWeights, SinglePhase, NoAverage)
for options in PLAIN:
    register(options, options.code_base)
