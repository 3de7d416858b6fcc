"""Image files anywhere below a folder, without labels."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stochca.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

MAX_MEGAPIXELS = 100  # larger images are skipped, before any of their pixels is decoded


def named_like_an_image(name: str) -> bool:
    """Whether a file is no hidden one and has the extension of a format that we decode."""
    from pipeline.images.decoding import EXTENSIONS

    return name[:1] != "." and os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122  a path would cost ten times as much


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
            if named_like_an_image(name):
                yield Path(parent, name)


class ImageFiles:
    """The images of a folder, decoded when asked for; they have no labels."""

    def __init__(self, folder: Path, *, short_side: int, max_megapixels: float) -> None:
        self.short_side, self.max_megapixels = short_side, max_megapixels
        try:
            self.paths = find_images([folder])
        except UserError as error:
            raise UserError(f"pretune.images: {error}") from None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> "tuple[Image.Image, int]":
        """The image (RGB), and 0.

        Raises:
            UserError: it can't be used.
        """
        from pipeline.images.decoding import UnusableImage, decode

        path = self.paths[index]
        try:
            content = path.read_bytes()
            decoded = decode(content, short_side=self.short_side, max_megapixels=self.max_megapixels)
        except (OSError, UnusableImage) as error:
            raise UserError(f"pretune.images: {path}: {error}; mend the file or take it away") from None
        if decoded.grey is not None and not decoded.grey.has_agreed_levels:
            raise UserError(
                f"pretune.images: {path} {decoded.note}; save all with 8 bits, or take data/prepared, where "
                "all have the same black and white"
            )
        return decoded.image, 0


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Files as they are given, and in folders all that are named like images, in order, each once.

    Hidden files and folders inside of folders are ignored, and links to folders are not followed.

    Raises:
        UserError: a path does not exist or can't be read, or there is no image at all.
    """
    found: dict[Path, None] = {}
    for path in paths:
        try:
            path.stat()
            found.update(dict.fromkeys(images_below(path) if path.is_dir() else [path]))
        except FileNotFoundError:
            raise UserError(f"{path} does not exist; give image files, or folders of them") from None
        except OSError as error:
            name = printable(str(error.filename or path))
            raise UserError(f"{name} can't be read: {error.strerror}; check its permissions") from None
    if not found:
        raise UserError(
            f"there is no image in {', '.join(map(str, paths))}; in folders, images are the files that are "
            "named *.jpg, *.png and the like"
        )
    return list(found)


def printable(name: str) -> str:
    """A file's name as text that can be stored, whatever bytes it holds."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
