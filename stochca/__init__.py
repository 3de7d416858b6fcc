"""StochCA: fine-tune vision transformers that attend to their pretrained selves now and then."""

from stochca._torchvision import make_importable

make_importable()  # before timm, which imports torchvision

from stochca.cross_attention import StochCA  # noqa: E402
from stochca.errors import UserError  # noqa: E402

__all__ = ["StochCA", "UserError"]
