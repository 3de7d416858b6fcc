"""Which image is for training, which for validation, which for the test.

Groups of images are drawn, never single images: what belongs together stays together. Within each
stratum (class and domain) the groups are put in an order that depends on the seed and on their names
alone, then cut. So a draw hardly moves when images are added, and smaller training sets are subsets of
larger ones.
"""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple


class Item(NamedTuple):
    """One image, as far as a draw is concerned."""

    label: int
    domain: str
    group: str  # images of one group share a split


def draw_splits(items: Sequence[Item], shares: Mapping[str, float], seed: int) -> list[str]:
    """Draw the splits named in `shares`; what is left is ``train``.

    Args:
        items: the images to split.
        shares: share of each stratum's groups per split, for example ``{"test": 0.25, "val": 0.15}``.
            A stratum that is too small serves train first, then the splits in this order.
        seed: another seed is another draw.

    Returns:
        The name of the split of each item.
    """
    splits = ["train"] * len(items)
    for groups in _strata(items, seed):
        bounds = _bounds(len(groups), list(shares.values()))
        start = 0
        for name, end in zip(shares, bounds, strict=True):
            for group in groups[start:end]:
                for index in group:
                    splits[index] = name
            start = end
    return splits


def keep_fraction(
    items: Sequence[Item], splits: Sequence[str], parts: Sequence[str], fraction: float, seed: int
) -> list[bool]:
    """Keep a share of the items of each of the splits `parts`, and all of the others.

    Of every stratum `fraction` of its groups is kept, rounded, which may leave none. Validation images may be
    few per class: there each stratum is rounded up or down by a draw, so that their number is right in total.
    What a smaller fraction keeps, every larger one keeps too.

    Returns:
        Whether each item is kept.
    """
    kept = [True] * len(items)
    for part in parts:
        members = [index for index, split in enumerate(splits) if split == part]
        for groups in _strata([items[index] for index in members], seed):
            name = items[members[groups[0][0]]].group
            offset = int(rank(seed, f"offset of {name}")[:8], 16) / 16**8 if part == "val" else 0.5
            for group in groups[int(fraction * len(groups) + offset) :]:
                for index in group:
                    kept[members[index]] = False
    return kept


def _strata(items: Sequence[Item], seed: int) -> list[list[list[int]]]:
    """For each stratum its groups in the drawn order, each group as indices into `items`."""
    groups: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(item.group, []).append(index)
    strata: dict[tuple[int, str], list[str]] = {}
    for name, members in groups.items():
        first = items[members[0]]  # a group that spans strata counts where it begins
        strata.setdefault((first.label, first.domain), []).append(name)
    return [
        [groups[name] for name in sorted(names, key=lambda n: rank(seed, n))] for names in strata.values()
    ]


def rank(seed: int, group: str) -> str:
    """Orders groups by a draw that depends on their names alone."""
    return hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()


def _bounds(count: int, shares: Sequence[float]) -> list[int]:
    """Where to cut an ordered list of `count` groups: one end per share, rounded.

    Every part gets a group, the rest too, as long as there are enough.
    """
    bounds: list[int] = []
    for place, share_end in enumerate(accumulate(shares)):
        least = (bounds[-1] if bounds else 0) + 1
        most = count - (len(shares) - place)  # leaves one group for each part that follows
        bound = max(int(share_end * count + 0.5), least)
        bounds.append(min(bound, max(most, min(least, count - 1))))
    return bounds
