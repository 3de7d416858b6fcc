"""StochCA: fine-tune vision transformers that attend to their pretrained selves now and then."""

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


def __getattr__(name: str) -> Any:
    # Lazy, so that command lines which only read params don't wait for torch and timm.
    if name == "StochCA":
        from stochca.cross_attention import StochCA

        return StochCA
    if name == "VPT":
        from stochca.adapters.prompts import VPT

        return VPT
    if name == "TOAST":
        from stochca.adapters.toast import TOAST

        return TOAST
    if name == "averaged_predictions":
        from stochca.ensembling import averaged_predictions

        return averaged_predictions
    raise AttributeError(f"module 'stochca' has no attribute {name!r}")
