"""Let timm import torchvision beside a CPU-only torch.

torchvision's compiled operators don't load there, and its Python side then fails on import because
two of them were never defined. timm needs neither; defining their signatures is enough.
"""

import importlib
import importlib.util

import torch

_OPERATORS = {
    "torchvision::nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "torchvision::qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def make_importable() -> None:
    """Import torchvision, defining its missing operators first where its own library can't load."""
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name, signature in _OPERATORS.items():
            torch.library.define(name, signature)
        importlib.import_module("torchvision")
