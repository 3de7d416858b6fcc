"""Folders of images, a class each."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.datasets.source import ALL, Record
from pipeline.images.image_files import printable
from stochca.errors import UserError


class ClassFolder(NamedTuple):
    """The images of one class in one domain and one split."""

    class_name: str
    path: Path
    place: str  # begins the ids of the images
    names: list[str]  # of the files, in order; no paths, because there may be half a million
    domain: str = ALL
    split: str | None = None


def shown(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, in order; hidden files are passed over.

    Raises:
        UserError: it can't be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"the folder {folder} can't be read: {error.strerror}; check its permissions"
        ) from None


def folder_records(folders: Sequence[ClassFolder]) -> Iterator[Record]:
    for folder in folders:
        for name in folder.names:
            yield Record(
                id=f"{folder.place}/{printable(name)}",
                class_name=folder.class_name,
                domain=folder.domain,
                read=(folder.path / name).read_bytes,
                split=folder.split,
            )
