"""One file of images as arrays, and the source of several."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from pipeline.config.params import Dataset
from pipeline.datasets.source import Record, Source, select_domains
from pipeline.images.decoding import Decoded, from_image
from pipeline.images.sizes import Sides


@dataclass(frozen=True)
class ArrayFile:
    """What is known of a file without its pixels."""

    ids: str  # makes the number of an image its id, "train/{:06}"
    split: str | None
    labels: np.ndarray
    pictures: Callable[[], Iterator[np.ndarray]]  # one after the other: height x width x 3, uint8


def array_source(
    dataset: Dataset, sides: Sides, files: Sequence[ArrayFile], names: Mapping[int, str], **described: Any
) -> Source:
    """The images of `files`, in order.

    Args:
        names: the classes by label.
        described: `layout`, `summary` and what else a `Source` says.
    """

    def records() -> Iterator[Record]:
        for file in files:
            for index, (label, picture) in enumerate(zip(file.labels, file.pictures(), strict=True)):
                decode = partial(_decode, picture, sides.stored)
                yield Record(file.ids.format(index), names[int(label)], picture.tobytes, decode, file.split)

    return Source(
        classes=list(names.values()),
        domains=select_domains(dataset.domains),
        records=records,
        count=sum(len(file.labels) for file in files),
        stored_side=sides.stored,
        root=dataset.root,
        **described,
    )


def _decode(picture: np.ndarray, short_side: int, _: bytes) -> Decoded:
    return from_image(Image.fromarray(picture), short_side=short_side, lossless=True)
