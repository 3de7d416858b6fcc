"""How large images are: as the model sees them, and as they are stored."""

from typing import NamedTuple

LONG = 1.5  # times as long as wide: of longer ones so much is cut off that it is told
CROP_MARGIN = 8 / 7  # images are stored this much larger than the model sees them, to crop from


class Sides(NamedTuple):
    """Of squares, in pixels."""

    image: int  # what the model sees
    stored: int  # photographs are stored with a short side of at most this
    squashed: bool = False  # whether all of an image is seen; else its middle square

    @classmethod
    def of(cls, image_size: int, resize: int | None) -> "Sides":
        """`resize` is what images are resized to before they are cropped to `image_size`, if they are."""
        return cls(image_size, resize or round(image_size * CROP_MARGIN), resize is not None)
