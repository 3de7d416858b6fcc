"""One file of images as arrays, and the source of several."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.config.params import Dataset
from pipeline.datasets.source import ALL, Record, Source, select_domains
from pipeline.images.decoding import Decoded, from_image
from pipeline.images.sizes import Sides


@dataclass(frozen=True)
class ArrayFile:
    """What is known of a file without its pixels."""

    path: Path
    ids: str  # makes the number of an image its id, "train/{:06}"
    split: str | None
    size: tuple[int, int]  # height and width of its images
    labels: np.ndarray
    pixels: Callable[[], Iterator[bytes]]  # of one image after the other: height x width x 3


def array_source(
    dataset: Dataset, sides: Sides, files: Sequence[ArrayFile], names: Mapping[int, str], **described: Any
) -> Source:
    """The images of `files`, in order.

    Args:
        names: the classes by label.
        described: `layout`, `summary` and what else a `Source` says.
    """
    return Source(
        classes=list(names.values()),
        domains=select_domains(dataset.domains, [ALL]),
        records=partial(_records, files, names, sides.stored),
        count=sum(len(file.labels) for file in files),
        stored_side=sides.stored,
        root=dataset.root,
        **described,
    )


def _records(files: Sequence[ArrayFile], names: Mapping[int, str], short_side: int) -> Iterator[Record]:
    for file in files:
        picture = partial(_decode, size=file.size, short_side=short_side)
        for index, (label, pixels) in enumerate(zip(file.labels, file.pixels(), strict=True)):
            identity = file.ids.format(index)
            yield Record(
                id=identity,
                class_name=names[int(label)],
                domain=ALL,
                group=identity,
                read=partial(bytes, pixels),
                decode=picture,
                split=file.split,
            )


def _decode(pixels: bytes, size: tuple[int, int], short_side: int) -> Decoded:
    array = np.frombuffer(pixels, np.uint8).reshape(*size, 3)
    return from_image(Image.fromarray(array), short_side=short_side, lossless=True)
