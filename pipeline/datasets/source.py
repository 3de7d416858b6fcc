"""What every dataset file hands over: where its images are, one by one, and what is known about them."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypedDict

from pipeline.images import Decoded
from stochca.errors import UserError

CROP_MARGIN = 8 / 7  # images are stored this much larger than the model sees them, to crop from
LEFT_OUT = "left out"  # the action for what is not among the prepared images


class Sides(NamedTuple):
    """Of squares, in pixels."""

    image: int  # what the model sees
    stored: int  # photographs are stored with a short side of at most this

    @classmethod
    def of(cls, image_size: int, resize: int | None) -> "Sides":
        """`resize` is what images are resized to before they are cropped to `image_size`, if they are."""
        return cls(image_size, resize or round(image_size * CROP_MARGIN))


class Problem(TypedDict):
    """Something the user should know about one file or folder."""

    file: str
    problem: str
    action: str


@dataclass(frozen=True)
class Record:
    """One image, not read yet."""

    id: str  # unique and human-readable
    class_name: str
    domain: str
    group: str  # images of one group are never in two splits
    read: Callable[[], bytes]  # the source; equal bytes mean the same image
    decode: Callable[[bytes], Decoded]  # the source to a picture; raises UnusableImage
    split: str | None = None  # train, val or test where the dataset says so


@dataclass(frozen=True)
class Source:
    """A dataset, ready to be read."""

    layout: str
    summary: str  # what was found, for the log
    classes: list[str]
    domains: list[str]
    records: Callable[[], Iterator[Record]]  # always in the same order
    count: int  # of the records
    stored_side: int  # pixels, the short side of the stored images is at most this
    root: str | None = None
    license: str | None = None
    attribution: str | None = None
    problems: list[Problem] = field(default_factory=list)
    paired: bool = False  # the same subject comes in several domains; `Record.group` names the subject


def printable(name: str) -> str:
    """A file's name as text that can be stored, whatever bytes it holds."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def select_domains(wanted: Sequence[str] | None, available: Sequence[str]) -> list[str]:
    """The domains to use, in the order in which the dataset lists them; None stands for all.

    Raises:
        UserError: a domain that the dataset does not have, or none at all.
    """
    if wanted is None:
        return list(available)
    unknown = [name for name in wanted if name not in available]
    if unknown or not wanted:
        found = f"names {', '.join(unknown)}" if unknown else "is empty"
        raise UserError(
            f"dataset.domains {found}; allowed here are {', '.join(available)}, or null for all of them"
        )
    return [name for name in available if name in wanted]
