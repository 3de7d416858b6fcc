"""Splits of groups of any size, which may hold several classes: subjects, patients, modules.

`draw_splits` counts groups, and takes each for one of its class. That is right for images on their own and
for the drawings of one subject; with ten patients of 5 to 500 images of two classes the shares would be off.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from math import fsum
from typing import NamedTuple

from pipeline.images.splits import Item, draw_splits, keep_fraction, rank

Stratum = tuple[int, str]  # class and domain
Draw = Callable[[Sequence[Item], Mapping[str, float], int], list[str]]  # as draw_splits
Keep = Callable[[Sequence[Item], Sequence[str], Sequence[str], float, int], list[bool]]  # as keep_fraction


class Group(NamedTuple):
    name: str
    counts: Counter[Stratum]  # of its images

    @property
    def size(self) -> int:
        return self.counts.total()

    @property
    def labels(self) -> set[int]:
        return {label for label, _ in self.counts}


def splitting(grouped: bool) -> tuple[Draw, Keep]:
    """How to draw splits, and how to keep a share of them; `grouped`: by groups of any size."""
    return (draw_group_splits, keep_group_fraction) if grouped else (draw_splits, keep_fraction)


def draw_group_splits(items: Sequence[Item], shares: Mapping[str, float], seed: int) -> list[str]:
    """As `draw_splits`, but with the shares of the images of each stratum as near as whole groups allow.

    One group after the other, large ones first, goes where Pearson's chi-squared of the counts so far against
    those that are wanted rises least. A class that is then missing in a split gets its smallest group that
    leaves no other split without one.

    Returns:
        The name of the split of each item.
    """
    shares = {"train": 1 - sum(shares.values()), **shares}
    # Twice as large comes first; those of about the same size by the draw.
    groups = sorted(_groups(items), key=lambda group: (-group.size.bit_length(), rank(seed, group.name)))
    totals = sum((group.counts for group in groups), Counter[Stratum]())
    held = {split: Counter[Stratum]() for split in shares}
    splits: dict[str, str] = {}
    for group in groups:
        split = min(shares, key=lambda name: _rise(group.counts, held[name], totals, shares[name]))
        held[split].update(group.counts)
        splits[group.name] = split
    _serve_every_class(groups, splits, list(shares))
    return [splits[item.group] for item in items]


def keep_group_fraction(
    items: Sequence[Item], splits: Sequence[str], parts: Sequence[str], fraction: float, seed: int
) -> list[bool]:
    """As `keep_fraction`, but by images, as near as whole groups allow, and one group at least.

    The groups of each stratum, to which most of their images belong, are spread evenly over an order of all,
    and the first are kept. What a smaller fraction keeps, every larger one keeps too.

    Returns:
        Whether each item is kept.
    """
    left_out: set[tuple[str, str]] = set()
    for part in parts:
        groups = _interleaved(
            [item for item, split in zip(items, splits, strict=True) if split == part], seed
        )
        left_out |= {(part, group.name) for group, place in _placed(groups)[1:] if place > fraction}
    return [(split, item.group) not in left_out for item, split in zip(items, splits, strict=True)]


def _interleaved(items: Sequence[Item], seed: int) -> list[Group]:
    """Any number of the first have about the shares of all."""
    strata: dict[Stratum, list[Group]] = {}
    for group in sorted(_groups(items), key=lambda group: rank(seed, group.name)):
        strata.setdefault(max(group.counts, key=lambda s: (group.counts[s], s)), []).append(group)
    placed = [each for groups in strata.values() for each in _placed(groups)]
    return [group for group, _ in sorted(placed, key=lambda each: (each[1], rank(seed, each[0].name)))]


def _placed(groups: Sequence[Group]) -> list[tuple[Group, float]]:
    """Each with where its middle lies among the images of all, from 0 to 1."""
    ends = list(accumulate(group.size for group in groups))
    return [(group, (end - group.size / 2) / ends[-1]) for group, end in zip(groups, ends, strict=True)]


def _groups(items: Sequence[Item]) -> list[Group]:
    counts: dict[str, Counter[Stratum]] = {}
    for item in items:
        counts.setdefault(item.group, Counter())[item.label, item.domain] += 1
    return [Group(name, found) for name, found in counts.items()]


def _rise(
    added: Mapping[Stratum, int], held: Mapping[Stratum, int], totals: Mapping[Stratum, int], share: float
) -> float:
    """Of the sum of (held - wanted)² / wanted when a group is added."""
    return fsum(
        count * ((count + 2 * held[stratum]) / (share * totals[stratum]) - 2)
        for stratum, count in added.items()
    )


def _serve_every_class(groups: Sequence[Group], splits: dict[str, str], names: Sequence[str]) -> None:
    """Change `splits` so that each of `names` has a group of every class, where there are enough."""
    places = Counter((splits[group.name], label) for group in groups for label in group.labels)
    smallest_first = sorted(groups, key=lambda group: group.size)  # a draw among equal ones stays
    for label in sorted({label for _, label in places}):
        for name in names:
            if places[name, label]:
                continue
            for group in (group for group in smallest_first if label in group.labels):
                before = splits[group.name]
                if all(places[before, other] > 1 for other in group.labels):
                    places.subtract((before, other) for other in group.labels)
                    places.update((name, other) for other in group.labels)
                    splits[group.name] = name
                    break
