"""StochCA: fine-tune vision transformers that attend to their pretrained selves now and then."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stochca._torchvision import make_importable
from stochca.errors import UserError

if TYPE_CHECKING:
    from stochca.adapters.toast import TOAST
    from stochca.adapters.vpt import VPT
    from stochca.attention.stochca import StochCA, averaged_predictions

__all__ = ["TOAST", "VPT", "StochCA", "UserError", "averaged_predictions"]

make_importable()

# Lazy, so that command lines which only read params don't wait for torch and timm.
_MODULES = {
    "TOAST": "stochca.adapters.toast",
    "VPT": "stochca.adapters.vpt",
    "StochCA": "stochca.attention.stochca",
    "averaged_predictions": "stochca.attention.stochca",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'stochca' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
