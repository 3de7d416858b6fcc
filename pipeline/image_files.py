"""Image files anywhere below a folder, without labels."""

import os
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from pipeline.images import EXTENSIONS, UnusableImage, decode
from stochca.errors import UserError


def images_below(folder: Path) -> Iterator[Path]:
    """Every file that is named like an image, in order; what is hidden is passed by, links are not followed.

    Raises:
        OSError: a folder can't be read.
    """

    def refuse(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS:
                yield Path(parent, name)


class ImageFiles:
    """The images of a folder, decoded when asked for; they have no labels."""

    def __init__(self, folder: Path, *, short_side: int, max_megapixels: float) -> None:
        self.short_side, self.max_megapixels = short_side, max_megapixels
        try:
            self.paths = list(images_below(folder))
        except OSError as error:
            raise UserError(f"pretune.images: {error.filename} can't be read ({error.strerror})") from None
        if not self.paths:
            raise UserError(f"pretune.images: there is no image in {folder}; give a folder of images")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """The image (RGB), and 0.

        Raises:
            UserError: it can't be used.
        """
        path = self.paths[index]
        try:
            content = path.read_bytes()
            decoded = decode(content, short_side=self.short_side, max_megapixels=self.max_megapixels)
        except (OSError, UnusableImage) as error:
            raise UserError(f"pretune.images: {path}: {error}; mend the file or take it away") from None
        return decoded.image, 0
