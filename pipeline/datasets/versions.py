"""Folders beside each other that hold versions of the same pictures, as color and grayscale: no domains."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from statistics import median

from pipeline.datasets.source import ClassFolder
from pipeline.images.image_files import printable
from stochca.errors import UserError

EVEN = 5  # times the smallest step between their numbers: half of the steps are no larger where names count
WHY = (
    "of versions of one picture some would be trained on and others tested; name one of the folders in "
    "dataset.domains, or all images in a table (dataset.labels) with the column group"
)


def refuse_versions(described: str, folders: Sequence[ClassFolder]) -> None:
    """Raise `UserError` where, by their names, the pictures of one domain are those of another.

    Half of a class are called as those of another domain, or so with more behind it. Names that only count,
    as pic_001, are the same by chance.
    """
    domains = sorted({folder.domain for folder in folders})
    augmented = [name for name in domains if "augment" in name.lower()]
    if augmented and len(domains) > 1:
        other = next(name for name in domains if name != augmented[0])
        raise UserError(f"{described} holds the folder {augmented[0]} beside {other}: {WHY}")
    classes: dict[str, list[ClassFolder]] = defaultdict(list)
    for folder in folders:
        classes[folder.class_name].append(folder)
    for of_class in classes.values():
        _refuse_in_class(described, of_class)


def _refuse_in_class(described: str, folders: Sequence[ClassFolder]) -> None:
    named: dict[str, list[ClassFolder]] = defaultdict(list)
    for folder in folders if len(folders) > 1 else ():
        stems = {_stem(name) for name in folder.names}
        if not _count(stems):
            for stem in stems:
                named[stem].append(folder)
    for folder in folders if named else ():
        same: dict[str, dict[str, str]] = defaultdict(dict)  # by place: what is there of each name
        for name in folder.names:
            for start in _beginnings(_stem(name)):
                for other in named.get(start, ()):
                    if other.domain != folder.domain:
                        same[other.place].setdefault(name, start)
        for place, starts in same.items():
            if 2 * len(starts) >= len(folder.names) and not _count(set(starts.values())):
                name, start = next(iter(starts.items()))
                raise UserError(
                    f"{described} holds {folder.place}/{printable(name)} and {place}/{printable(start)}, and "
                    f"so for {len(starts):,} of {len(folder.names):,} files in {folder.place}: {WHY}"
                )


def _count(stems: Collection[str]) -> bool:
    """Whether their numbers follow each other at about even steps, or are few."""
    numbers = sorted({int(digits) for stem in stems if (digits := re.sub(r"\D", "", stem))})
    steps = [after - before for before, after in pairwise(numbers)]
    return not steps or median(steps) <= EVEN * min(steps)


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _beginnings(stem: str) -> Iterator[str]:
    """All of it, and what stands before each sign between its words."""
    yield stem
    for sign in re.finditer(r"[\W_]+", stem):
        yield stem[: sign.start()]
