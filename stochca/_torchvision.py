"""Let timm import torchvision beside a torch that it was not built for, such as a CPU-only one.

torchvision's compiled operators don't load there, and its Python side then fails on import because two of
them were never defined. timm needs neither; defining their signatures is enough. That has to happen after
torchvision has tried its own library, which could not define them a second time, and before it registers on
them: thus a look at what is imported, which costs nothing, answers nothing and leaves when it was needed.
"""

import importlib.abc
import sys
from typing import Any

_REGISTERS = "torchvision._meta_registrations"
_OPERATORS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


class _DefineMissingOperators(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == _REGISTERS:
            # A new list: Python is going through the old one, and would skip the finder behind this.
            sys.meta_path = [finder for finder in sys.meta_path if finder is not self]
            define_missing_operators()


def define_missing_operators() -> None:
    """Define those of the operators that neither torchvision's library nor anybody else has."""
    import torch

    for name, signature in _OPERATORS.items():
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", signature)


def make_importable() -> None:
    """Arrange for `import torchvision`, whenever it comes, to work; waits for nothing."""
    if _REGISTERS not in sys.modules:
        sys.meta_path.insert(0, _DefineMissingOperators())
