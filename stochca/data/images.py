"""Labelled images, and views of them: decoded once, some of them alone, the share of a rank."""

import math
from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np
from PIL import Image
from torch.utils.data import ConcatDataset, Subset

from stochca.compute.distributed import rank, world_size
from stochca.compute.randomness import derived_seed, isolated, untouched
from stochca.errors import UserError

CACHE_BYTES = 1 << 30  # decoded images are kept in memory up to this size
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
