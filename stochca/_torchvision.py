"""Let timm import torchvision beside a CPU-only torch.

torchvision's compiled operators don't load there, and its Python side then fails on import because
two of them were never defined. timm needs neither; defining their signatures is enough.
"""

import importlib.abc
import sys
from typing import Any

_OPERATORS = {
    "torchvision::nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "torchvision::qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


class _DefineMissingOperators(importlib.abc.MetaPathFinder):
    """Steps in once, when torchvision has tried its library and is about to register on its operators."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "torchvision._meta_registrations":
            sys.meta_path.remove(self)
            if not sys.modules["torchvision.extension"]._has_ops():
                import torch

                for operator, signature in _OPERATORS.items():
                    torch.library.define(operator, signature)
        return None


def make_importable() -> None:
    """Arrange for `import torchvision`, whenever it comes, to work; costs nothing until then."""
    if "torchvision" not in sys.modules:
        sys.meta_path.insert(0, _DefineMissingOperators())
