"""StochCA: fine-tune vision transformers that attend to their pretrained selves now and then."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stochca._torchvision import make_importable
from stochca.errors import UserError

if TYPE_CHECKING:
    from stochca.adapters.prompts import VPT
    from stochca.adapters.toast import TOAST
    from stochca.cross_attention import StochCA
    from stochca.ensembling import averaged_predictions

__all__ = ["TOAST", "VPT", "StochCA", "UserError", "averaged_predictions"]

make_importable()

# Lazy, so that command lines which only read params don't wait for torch and timm.
_MODULES = {
    "TOAST": "stochca.adapters.toast",
    "VPT": "stochca.adapters.prompts",
    "StochCA": "stochca.cross_attention",
    "averaged_predictions": "stochca.ensembling",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'stochca' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
