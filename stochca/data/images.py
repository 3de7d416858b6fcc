"""Labelled images, and views of them: decoded once, some of them alone, the share of a rank."""

import math
from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

from stochca.compute.distributed import rank, world_size
from stochca.compute.randomness import derived_seed, isolated, untouched
from stochca.errors import UserError

CACHE_BYTES = 1 << 30  # decoded images are kept in memory up to this size
SCALARS = (Tensor, np.ndarray, np.generic)  # what may hold a label, beside Python's int
READ_TWICE = 64  # images that tell whether a collection draws at random


class Images(Protocol):
    """Labelled images: `images[i]` is an RGB picture and its class.

    Images to train on may differ each time that they are asked for, as a random transform makes them. A
    collection that has its classes (N,) without decoding may offer them as `known_labels`.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]: ...


def in_rgb(picture: object) -> Image.Image:
    """The picture, or a `UserError` where it is none of Pillow's in RGB."""
    if isinstance(picture, Image.Image) and picture.mode == "RGB":
        return picture
    found = (
        f"a picture of mode {picture.mode}" if isinstance(picture, Image.Image) else type(picture).__name__
    )
    raise UserError(
        f"images give {found} where a picture of Pillow in RGB is wanted, as image.convert('RGB') makes it; "
        "tensors are made of it here"
    )


class CheckedLabels:
    """A view of images, each of whose labels is checked when it is read.

    Args:
        called: what a sentence calls them: ``training images``.
        classes: labels are below it; None: that is not known.
    """

    def __init__(self, images: Images, called: str, classes: int | None = None) -> None:
        self.images, self.called, self.classes = images, called, classes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Raises `UserError` where it is no pair, or its label no class."""
        item = self.images[index]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise UserError(
                f"image {index} of the {self.called} is given as {type(item).__name__}, where a pair of a "
                "picture and its class is wanted"
            )
        return item[0], self._label(index, item[1])

    @property
    def ids(self) -> Sequence[str] | None:
        return getattr(self.images, "ids", None)

    @property
    def known_labels(self) -> Sequence[int] | np.ndarray | None:
        """Those of a list are known as well."""
        if isinstance(self.images, list):
            return [self[index][1] for index in range(len(self))]
        known = getattr(self.images, "known_labels", None)
        if known is None or self._are_classes(known):
            return known
        return [self._label(index, label) for index, label in enumerate(known)]

    def _are_classes(self, labels: object) -> bool:
        """Of an array all at once: there may be millions."""
        if not isinstance(labels, np.ndarray) or labels.ndim != 1 or labels.dtype.kind not in "iu":
            return False
        return self.classes is None or bool(((labels >= 0) & (labels < self.classes)).all())

    def _label(self, index: int, label: object) -> int:
        number = label
        if not isinstance(label, int) and isinstance(label, SCALARS) and math.prod(label.shape) == 1:
            number = label.item()
        if isinstance(number, int) and (self.classes is None or 0 <= number < self.classes):
            return int(number)
        allowed = "" if self.classes is None else f" from 0 to {self.classes - 1}, the outputs of the head,"
        raise UserError(
            f"image {index} of the {self.called} has the label {' '.join(repr(label).split())[:80]}, where a "
            f"whole number{allowed} is wanted; number the classes so, and leave out images of no class"
        )


def are_steady(images: Images) -> bool:
    """Whether images from all over look the same when they are read again, all with other random numbers."""
    count = min(READ_TWICE, len(images))

    def pixels(index: int, reading: int) -> bytes:
        with isolated(derived_seed(index, reading)):
            return in_rgb(images[index][0]).tobytes()

    return all(pixels(i, 0) == pixels(i, 1) for i in (len(images) * place // count for place in range(count)))


def keep_in_memory(images: Images, reads: float = math.inf) -> Images:
    """Decode the images once and for all, where they are steady and that takes less than `CACHE_BYTES`.

    Args:
        reads: how many the training loop will ask for; where that is less than an epoch, most are asked for
            at most once, and all are decoded when they are.
    """
    if len(images) == 0 or reads <= len(images) or not are_steady(images):
        return images
    items: list[tuple[Image.Image, int]] = []
    taken = 0
    for i in range(len(images)):
        items.append(images[i])
        width, height = items[-1][0].size
        taken += 3 * width * height
        # Most sets are of one size, and too large a one is then found out at its first image.
        if (taken * len(images) if i == 0 else taken) > CACHE_BYTES:
            return images
    return items


def names_of(parts: Sequence[Images], indices: Sequence[int]) -> list[str]:
    """What these of the images of all parts together are called: by name where they have one."""
    names = [
        name
        for part in parts
        for name in getattr(part, "ids", None) or [f"image {i}" for i in range(len(part))]
    ]
    return [names[index] for index in indices]


def labels_of(images: Images) -> np.ndarray:
    """The labels (N,); images that have no `known_labels` are decoded for it, whose draws don't count."""
    known = getattr(images, "known_labels", None)
    with untouched():
        labels = [images[i][1] for i in range(len(images))] if known is None else known
    return np.asarray(labels, dtype=np.int64)


def joined_images(*parts: Images) -> Images:
    """The images of several collections, one after the other."""
    return ConcatDataset(cast(Any, parts))  # which asks for no more than `Images` is


def some_of(images: Images, rows: Sequence[int]) -> Images:
    """These of the images, by their places, in this order."""
    return Subset(cast(Any, images), rows)


def share_of_rank(images: Images) -> Images:
    """The images that this rank looks at when all ranks look at a split together, in order."""
    share, longer = divmod(len(images), world_size())  # the first ranks have one more
    start = rank() * share + min(rank(), longer)
    return some_of(images, range(start, start + share + (rank() < longer)))
