"""`torch.compile` of a transformer, block by block.

All blocks of a model run the same code: compiled one by one, the same few graphs serve all of them. A block
that cross-attends is a second variant of that code, so that which blocks were drawn never makes a step
compile again. What is around the blocks, and evaluation, which sees other batch sizes, stay eager.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from stochca._typing import TimmModule
from stochca.errors import UserError
from stochca.families import blocks_of

# Of one block: attending to itself, to keys that lie in memory in one of two ways, recording its own.
VARIANTS = 8

CPU_COMPILERS = ("g++", "clang++", "c++")


def check_compiles(device: torch.device) -> None:
    """Raise `UserError` where what `torch.compile` needs is missing."""
    if device.type == "cpu":
        named = os.environ.get("CXX")
        if not any(map(shutil.which, [named] if named else CPU_COMPILERS)):
            raise UserError(
                f"training.compile true needs a C++ compiler on a CPU, but found none of "
                f"{named or ', '.join(CPU_COMPILERS)}; install one (Debian: apt install g++), or set it to "
                "false"
            )
    elif device.type == "cuda" and find_spec("triton") is None:
        raise UserError(
            "training.compile true needs the package triton on a GPU; install it, or set it to false"
        )


class CompiledForward:
    """Stands in for `block.forward` of a block that trains, or of any block of a teacher."""

    def __init__(self, block: nn.Module, compiled: Callable[..., Any], in_evaluation: bool) -> None:
        self.block = block
        self.compiled = compiled
        self.in_evaluation = in_evaluation

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        compiled = self.block.training or self.in_evaluation
        return (self.compiled if compiled else _forward)(self.block, *args, **kwargs)


@contextmanager
def compiled_blocks(
    student: TimmModule, teacher: TimmModule | None = None, backend: str = "inductor"
) -> Iterator[None]:
    """Within, the blocks of both run compiled: the student's while it trains, the teacher's always.

    Both keep their modules, names and hooks; a copy of the student made within runs as it does.
    """
    models = [(student, False), *([(teacher, True)] if teacher is not None else [])]
    blocks = [(block, in_evaluation) for model, in_evaluation in models for block in blocks_of(model)]
    # Blocks may differ by a number, such as their rate of stochastic depth, which is part of a graph.
    limits = torch._dynamo.config.patch(recompile_limit=VARIANTS * len(blocks))
    forward = torch.compile(_forward, backend=backend, dynamic=False)
    for block, in_evaluation in blocks:
        block.__dict__["forward"] = CompiledForward(block, forward, in_evaluation)
    try:
        with limits:
            yield
    finally:
        for block, _ in blocks:
            del block.__dict__["forward"]


@contextmanager
def uncompiled(block: nn.Module) -> Iterator[None]:
    """Within, `block` runs eagerly: an exception that leaves a graph would give the graph up for good."""
    compiled = block.__dict__.pop("forward", None)
    try:
        yield
    finally:
        if compiled is not None:
            block.__dict__["forward"] = compiled


def _forward(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return type(block).forward(block, *args, **kwargs)
