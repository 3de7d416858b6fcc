"""A fine-tuning method is a composition of independent choices (see the table in README.md).

>>> Method()                                                   # plain fine-tuning
>>> Method(attention=StochasticCrossAttention(prob=0.1))       # StochCA
>>> Method(attention=StochasticCrossAttention(), average=Swad())  # a combination
>>> Method(adapter=Lora(rank=4), phases=LpFt())                     # another

Nothing here imports torch, so that params.yaml is read at once. Every module of this package is imported, so
that each part registers itself; here are the options of all of them, by the names of their classes.
"""

from importlib import import_module
from pkgutil import walk_packages
from typing import Any

from stochca.config.attention import Schedule, StochasticCrossAttention
from stochca.config.method import Method
from stochca.config.options import Adapter, Attention, Average, Options, Penalty, Phases
from stochca.config.plain import AllWeights, NoAverage, SelfAttention, SinglePhase
from stochca.config.registry import CHOICES, CODE, SEVERAL, build, code_of, register

__all__ = [
    "CHOICES",
    "SEVERAL",
    "Adapter",
    "AllWeights",
    "Attention",
    "Average",
    "Method",
    "NoAverage",
    "Options",
    "Penalty",
    "Phases",
    "Schedule",
    "SelfAttention",
    "SinglePhase",
    "StochasticCrossAttention",
    "build",
    "code_of",
    "register",
]

for module in walk_packages(__path__, f"{__name__}."):
    import_module(module.name)


def __getattr__(name: str) -> Any:
    for options in CODE:
        if options.__name__ == name:
            return options
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
