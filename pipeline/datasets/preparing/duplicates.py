"""Finds the same image under several names, keeps it in one split or leaves it out, and tells the user."""

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.datasets.preparing.ingest import Row
from pipeline.datasets.source import LEFT_OUT, Problem
from stochca.errors import UserError


def merge_groups(rows: Sequence[Row]) -> list[str]:
    """The group of each row, where groups that share an image have become one.

    A merged group bears the first of its names in alphabetical order. Of many patients there are slices that
    show nothing: an image of one colour says of no groups that they belong together.
    """
    from scipy.cluster.hierarchy import DisjointSet  # slow to load

    sharing = DisjointSet()
    for same in _equal_images(rows):
        for index in same:
            sharing.add(rows[index].group)
            sharing.merge(rows[same[0]].group, rows[index].group)
    first = {}
    for subset in sharing.subsets():
        first.update(dict.fromkeys(subset, min(subset)))
    return [first.get(row.group, row.group) for row in rows]


def report(rows: Sequence[Row], splits: Sequence[str], classes: Sequence[str]) -> list[Problem]:
    """One problem for each further name of an image, which says where its class or split differs."""
    problems: list[Problem] = []
    blank = [row.group for row in rows if _is_blank_of_group(row)]
    if len(set(blank)) > 1:
        problem = f"are of one colour, and of {len(set(blank)):,} groups"
        problems.append({"file": f"{len(blank):,} images", "problem": problem, "action": "join no groups"})
    for same in _equal_images(rows):
        first = same[0]
        seen = {(rows[first].group, rows[first].label)}
        for index in same[1:]:
            if (rows[index].group, rows[index].label) in seen:
                continue
            seen.add((rows[index].group, rows[index].label))
            problem = f"is the same image as {rows[first].id}"
            its_class, other = classes[rows[index].label], classes[rows[first].label]
            if its_class != other:
                problem += f", but of the class {its_class}, not {other}"
            if splits[index] != splits[first]:
                problem += f", which is in {splits[first]} while this is in {splits[index]}"
                action = "kept in both splits"
            else:
                joined = {rows[i].group for i in (first, index)} - {rows[i].id for i in (first, index)}
                groups = f", and so are the groups {' and '.join(sorted(joined))}" if len(joined) > 1 else ""
                action = f"kept, in one split{groups}"
            problems.append({"file": rows[index].id, "problem": problem, "action": action})
    return problems


def refuse_across_splits(rows: Sequence[Row], splits: Sequence[str]) -> None:
    """Raise a UserError that names the first image found in two splits and counts all such images."""
    across = [same for same in _equal_images(rows) if len({splits[index] for index in same}) > 1]
    if across:
        first = across[0][0]
        other = next(index for index in across[0] if splits[index] != splits[first])
        raise UserError(
            f"{rows[first].id} ({splits[first]}) and {rows[other].id} ({splits[other]}) are the same image, "
            f"one of {len(across)} in several splits; remove one of each or set dataset.duplicates: warn"
        )


def leave_out_repeated(rows: Sequence[Row], splits: Sequence[str]) -> tuple[list[str], list[Problem]]:
    """Of equal pictures of a class in a domain only one stays in use: one to test on before one to train on.

    Pictures are compared by their pixels: what differs in one style may be drawn alike in another.

    Returns:
        The split of each row, `repeated` where its picture is another's, and one problem for each of those.
    """
    order = sorted(range(len(rows)), key=lambda index: ("test", "val", "train").index(splits[index]))
    stays: dict[tuple[int, str, bytes], int] = {}
    kept = list(splits)
    problems: list[Problem] = []
    for index in order:
        row = rows[index]
        first = stays.setdefault((row.label, row.domain, row.pixels_hash), index)
        if first != index:
            kept[index] = "repeated"
            same = f"is the same picture as {rows[first].id}"
            problems.append({"file": row.id, "problem": same, "action": LEFT_OUT})
    return kept, problems


def _is_blank_of_group(row: Row) -> bool:
    return row.is_blank and row.group != row.id


def _equal_images(rows: Sequence[Row]) -> Iterator[list[int]]:
    """The rows of each image that belongs to more than one group, or class; none of one colour in a group."""
    # Numbers first, of which an array is small; a table of all hashes would be the largest thing in memory.
    starts = np.fromiter((int.from_bytes(row.source_hash[:8]) for row in rows), np.uint64, len(rows))
    _, position, count = np.unique(starts, return_inverse=True, return_counts=True)
    found: dict[bytes, list[int]] = {}
    for index in np.flatnonzero(count[position] > 1).tolist():
        if not _is_blank_of_group(rows[index]):
            found.setdefault(rows[index].source_hash, []).append(index)
    for same in found.values():
        if len({(rows[index].group, rows[index].label) for index in same}) > 1:
            yield same
