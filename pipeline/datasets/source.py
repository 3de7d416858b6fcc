"""What every dataset file hands over: where its images are, one by one, and what is known about them."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from pipeline.config.datasets import registered
from pipeline.config.params import Dataset
from pipeline.datasets.alike import alike, both
from pipeline.images.image_files import printable
from pipeline.images.sizes import Sides
from stochca.errors import UserError

if TYPE_CHECKING:
    from pipeline.images.decoding import Decoded

LEFT_OUT = "left out"  # the action for what is not among the prepared images
ALL = "all"  # the domain of images without domains
USED = ("train", "val", "test")  # the splits that a dataset may give, and that every class should be in


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
    read: Callable[[], bytes]  # the source; equal bytes mean the same image
    decode: "Callable[[bytes], Decoded] | None" = None  # None: the source is an image file
    split: str | None = None  # one of USED where the dataset says so
    domain: str = ALL
    group: str | None = None  # images of one group are never in two splits; None: it is on its own


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
    grouped: bool = False  # groups are of any size, and may hold images of several classes


def open_source(dataset: Dataset, sides: Sides) -> Source:
    """The dataset that params.yaml names, found and checked by the `load` of its module.

    Raises:
        UserError: it is not there, or not whole; the sentence says what to download, and where to put it.
    """
    source: Source = import_module(registered(dataset.name).module).load(dataset, sides)
    notes: list[Problem] = [
        {"file": other, "problem": f"looks like another: {both(one, other)}", "action": "taken for two"}
        for names in (source.classes, source.domains)
        for one, other in alike(names)
    ]
    return replace(source, problems=[*source.problems, *notes]) if notes else source


def select_domains(wanted: Sequence[str] | None, available: Sequence[str] = (ALL,)) -> list[str]:
    """The domains to use, in the order in which the dataset lists them; None stands for all.

    Raises:
        UserError: a domain that the dataset does not have, or none at all.
    """
    if wanted is None:
        return list(available)
    unknown = [name for name in wanted if name not in available]
    if unknown or not wanted:
        found = f"names {', '.join(unknown)}" if unknown else "is empty"
        near = next((both(*pair) for pair in alike([*unknown, *available])), None)
        found += f" ({near} look alike)" if near else ""
        raise UserError(
            f"dataset.domains {found}; allowed here are {', '.join(available)}, or null for all of them"
        )
    return [name for name in available if name in wanted]


def unusable(id: str, problem: str, split: str | None = None) -> Record:
    """An image that is left out, and why."""
    from pipeline.images.decoding import UnusableImage

    def refuse() -> bytes:
        raise UnusableImage(problem)

    return Record(id=id, class_name="", read=refuse, split=split)


class ClassFolder(NamedTuple):
    """The images of one class in one domain and one split."""

    class_name: str
    path: Path
    place: str  # begins the ids of the images
    names: list[str]  # of the files, in order; no paths, because there may be half a million
    domain: str = ALL
    split: str | None = None


# What archives and systems leave in folders: of macOS, Windows, Synology, Linux and Python.
LEFT_BEHIND = {
    *("__MACOSX", "$RECYCLE.BIN", "System Volume Information", "Thumbs.db", "desktop.ini"),
    *("@eaDir", "#recycle", "lost+found", "__pycache__"),
}


def shown(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, in order; hidden files, and what systems leave behind, are passed over.

    Raises:
        UserError: it can't be read.
    """
    try:
        with os.scandir(folder) as entries:
            kept = [e for e in entries if not e.name.startswith(".") and e.name not in LEFT_BEHIND]
            return sorted(kept, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"the folder {folder} can't be read: {error.strerror}; check its permissions"
        ) from None


def folder_records(
    folders: Sequence[ClassFolder], groups: Mapping[str, str] | None = None
) -> Iterator[Record]:
    """One after the other; `groups` names the group of each id that has one."""
    for folder in folders:
        for name in folder.names:
            id = f"{folder.place}/{printable(name)}"
            yield Record(
                id=id,
                class_name=folder.class_name,
                domain=folder.domain,
                read=(folder.path / name).read_bytes,
                split=folder.split,
                group=groups.get(id) if groups else None,
            )
