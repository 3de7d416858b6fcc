"""`torch.compile` of a transformer, block by block.

All blocks of a model run the same code: compiled one by one, the same few graphs serve all of them. A block
that cross-attends is a second variant of that code, so that which blocks were drawn never makes a step
compile again. (Stochastic depth gives every block a number of its own, and so graphs of its own.) What is
around the blocks, and evaluation, which sees other batch sizes, stay eager.
"""

import os
import shutil
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from stochca._typing import TimmModule
from stochca.errors import UserError
from stochca.timm_models.families import blocks_of

# Of one block: attending to itself, to keys that lie in memory in one of two ways, recording its own.
VARIANTS = 8


def check_compiles(device: torch.device) -> None:
    """Raise `UserError` where what `torch.compile` needs is missing."""
    if device.type == "cuda" and find_spec("triton") is None:
        raise UserError(
            "training.compile true needs the package triton on a GPU; install it, or set it to false"
        )
    variable, usual = ("CC", ("gcc", "clang")) if device.type == "cuda" else ("CXX", (CPU_COMPILER,))
    wanted = (os.environ[variable],) if os.environ.get(variable) else usual
    if not any(map(shutil.which, wanted)):
        raise UserError(
            f"training.compile true needs the compiler {' or '.join(wanted)}, which was not found; install "
            f"it (Debian: apt install g++), name another in the variable {variable}, or set it to "
            "false"
        )


CPU_COMPILER = "clang++" if sys.platform == "darwin" else "g++"  # what torch looks for


class CompiledForward:
    """Stands in for `block.forward`: compiled where gradients are wanted, and in a teacher always."""

    def __init__(self, block: nn.Module, compiled: Callable[..., Any], without_gradients: bool) -> None:
        self.block = weakref.ref(block)  # which holds this
        self.compiled = compiled
        self.without_gradients = without_gradients

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        compiles = self.without_gradients or torch.is_grad_enabled()
        block = self.block()
        assert block is not None
        return (self.compiled if compiles else _forward)(block, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> "CompiledForward":
        # The copy of the block, which is being made.
        return CompiledForward(memo[id(self.block())], self.compiled, self.without_gradients)


@contextmanager
def compiled_blocks(
    student: TimmModule | None, teacher: TimmModule | None = None, backend: str = "inductor"
) -> Iterator[None]:
    """Within, the blocks of both run compiled: the student's for gradients, a frozen teacher's always.

    Both keep their modules, names and hooks; a copy of the student made within runs as it does.
    """
    models = [(model, model is teacher) for model in (student, teacher) if model is not None]
    blocks = [(block, is_teacher) for model, is_teacher in models for block in blocks_of(model)]
    # The limits are there to find code that compiles for ever; past them, blocks would silently be eager.
    limit = VARIANTS * len(blocks)
    forward = torch.compile(_forward, backend=backend, dynamic=False)
    try:
        for block, is_teacher in blocks:
            block.__dict__["forward"] = CompiledForward(block, forward, without_gradients=is_teacher)
        with torch._dynamo.config.patch(recompile_limit=limit, accumulated_recompile_limit=100 * limit):
            yield
    finally:
        for block, _ in blocks:
            block.__dict__.pop("forward", None)


@contextmanager
def uncompiled(block: nn.Module) -> Iterator[None]:
    """Within, `block` runs eagerly: an exception that leaves a graph would give the graph up for good."""
    compiled = block.__dict__.get("forward")
    try:
        block.__dict__.pop("forward", None)
        yield
    finally:
        if compiled is not None:
            block.__dict__["forward"] = compiled


def _forward(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return type(block).forward(block, *args, **kwargs)
