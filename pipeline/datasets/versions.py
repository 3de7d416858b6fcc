"""Versions of the same picture, told by their names: in folders beside each other, or within a class.

Folders as color and grayscale are no domains; copies that augmentation left in a class stay in one split.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from statistics import median

from pipeline.datasets.masks import FEW
from pipeline.datasets.source import ClassFolder, Problem
from pipeline.images.image_files import printable
from stochca.errors import UserError

EVEN = 5  # times the smallest step between their numbers: half of the steps are no larger where names count
WHY = (
    "of versions of one picture some would be trained on and others tested; name one of the folders in "
    "dataset.domains, or all images in a table (dataset.labels) with the column group"
)
_ROBOFLOW = re.compile(r"\.rf\.\w+$")  # x_jpg.rf.HASH, as often as there are versions of x
_SIGN = re.compile(r"[\W_]+")  # between the words of a name
_WORD = re.compile(r"[^\W\d_]{2}")  # a number counts, and so does a letter


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


def versions_within(folders: Sequence[ClassFolder]) -> tuple[dict[str, str], list[Problem]]:
    """Images that are named as versions of another of their class and domain, in whatever split.

    Behind or before the name of the other stands a word, as in x_90deg and flipped_x, the same with several,
    and so for a tenth of the class; or Roboflow's hash.

    Returns:
        The id of each with that of the other, which is never among them, and what there is to say.
    """
    classes: dict[tuple[str, str], list[ClassFolder]] = defaultdict(list)
    for folder in folders:
        classes[folder.domain, folder.class_name].append(folder)
    versions: dict[str, str] = {}
    parted: list[str] = []
    for of_class in classes.values():
        for version, other, in_one_split in _versions_in_class(of_class):
            versions[version] = other
            if not in_one_split:
                parted.append(version)
    notes: list[Problem] = []
    for found, problem, action in (
        (list(versions), "are named as versions of others", "where splits are drawn, these stay in one"),
        (parted, "lie in another split than what they are versions of", "kept; scores may come out too good"),
    ):
        if found:
            problem += f", as {found[0]} of {versions[found[0]]}"
            notes.append({"file": f"{len(found):,} images", "problem": problem, "action": action})
    return versions, notes


def _versions_in_class(folders: Sequence[ClassFolder]) -> Iterator[tuple[str, str, bool]]:
    """The ids of each and of the other, if possible of its own folder, and whether they are of one split."""
    first: dict[str, dict[str, str]] = {}  # by place: the id of the first of each stem
    for folder in folders:
        ids = first[folder.place] = {}
        for name in folder.names:
            ids.setdefault(_ROBOFLOW.sub("", _stem(name)), f"{folder.place}/{printable(name)}")
    others = _named_after({stem for ids in first.values() for stem in ids})
    for folder in folders:
        for name in folder.names:
            stem = _ROBOFLOW.sub("", _stem(name))
            if stem in others or stem != _stem(name):
                original = others.get(stem, stem)
                near = next(each for each in (folder, *folders) if original in first[each.place])
                id, other = f"{folder.place}/{printable(name)}", first[near.place][original]
                if id != other:
                    yield id, other, near.split == folder.split


def _named_after(stems: Collection[str]) -> dict[str, str]:
    """Each stem that is another with a word behind or before it, and the shortest of those."""
    pairs = [
        (stem, other, re.sub(r"\d", "", added))
        for stem in stems
        for sign in _SIGN.finditer(stem)
        for other, added in (
            (stem[: sign.start()], stem[sign.start() :]),
            (stem[sign.end() :], stem[: sign.end()]),
        )
        if other in stems and _WORD.search(added) and not (other.isdecimal() and stem.endswith(other))
    ]
    added_to: dict[str, set[str]] = defaultdict(set)
    for _, other, added in pairs:
        added_to[added].add(other)
    others: dict[str, str] = {}
    for stem, other, added in sorted(pairs, key=lambda pair: (len(pair[0]), len(pair[1]), pair)):
        if len(added_to[added]) > 1:
            others.setdefault(stem, others.get(other, other))
    return others if len(others) >= FEW * len(stems) else {}


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
    for sign in _SIGN.finditer(stem):
        yield stem[: sign.start()]
