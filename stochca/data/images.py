"""Labelled images, and views of them: decoded once, several collections as one, the share of a rank."""

import math
from collections.abc import Sequence
from typing import Protocol

from PIL import Image

from stochca.compute.distributed import rank, world_size

CACHE_BYTES = 1 << 30  # decoded images are kept in memory up to this size


class Images(Protocol):
    """Labelled images: `images[i]` is an RGB picture and its class."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image, int]: ...


class InMemory:
    """The same images, decoded once."""

    def __init__(self, items: Sequence[tuple[Image.Image, int]]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self._items[index]


def keep_in_memory(images: Images, reads: float = math.inf) -> Images:
    """Decode the images once and for all, where that takes less than `CACHE_BYTES`.

    Args:
        reads: how many the training loop will ask for; where that is less than an epoch, most are asked for
            at most once, and all are decoded when they are.
    """
    if len(images) == 0 or reads <= len(images):
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
    return InMemory(items)


def names_of(parts: Sequence[Images], indices: Sequence[int]) -> list[str]:
    """What these of the images of all parts together are called: by name where they have one."""
    names = [
        name
        for part in parts
        for name in getattr(part, "ids", None) or [f"image {i}" for i in range(len(part))]
    ]
    return [names[index] for index in indices]


class Joined:
    """The images of several collections, one after the other."""

    def __init__(self, *parts: Images) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        for part in self.parts:
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError("there are no more images")


class ImageShare:
    """The images that this rank looks at when all ranks look at a split together, in order."""

    def __init__(self, images: Images) -> None:
        self.images = images
        share, longer = divmod(len(images), world_size())  # the first ranks have one more
        start = rank() * share + min(rank(), longer)
        self.rows = range(start, start + share + (rank() < longer))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.images[self.rows[index]]
