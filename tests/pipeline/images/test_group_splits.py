import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.images.group_splits import draw_group_splits, keep_group_fraction
from pipeline.images.splits import Item

SHARES = {"test": 0.25, "val": 0.15}


def patients(sizes: Sequence[int], seed: int, labels: int = 2) -> list[Item]:
    """Each has images of several classes, mostly of one."""
    draw = random.Random(seed)
    items = []
    for number, size in enumerate(sizes):
        mostly = draw.randrange(labels)
        for _ in range(size):
            label = mostly if draw.random() < 0.8 else draw.randrange(labels)
            items.append(Item(label, "all", f"patient{number}"))
    return draw.sample(items, len(items))


def chi_squared(items: Sequence[Item], splits: Sequence[str]) -> float:
    """Of images per class and split against the shares, counted slowly."""
    total = 0.0
    for label in {item.label for item in items}:
        of_class = [split for item, split in zip(items, splits, strict=True) if item.label == label]
        for name, share in {"train": 0.6, **SHARES}.items():
            wanted = share * len(of_class)
            total += (of_class.count(name) - wanted) ** 2 / wanted
    return total


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_whole_and_every_split_has_every_class(seed: int) -> None:
    sizes = [random.Random(seed).choice([1, 2, 5, 20, 100]) for _ in range(40)]
    items = patients(sizes, seed, labels=4)
    splits = draw_group_splits(items, SHARES, seed)
    of_group = defaultdict(set)
    for item, split in zip(items, splits, strict=True):
        of_group[item.group].add(split)
    assert all(len(found) == 1 for found in of_group.values())
    found = {(item.label, split) for item, split in zip(items, splits, strict=True)}
    assert found == set(product(range(4), ("train", "test", "val")))


def scikit_learns(items: Sequence[Item]) -> list[str]:
    """A quarter tests, and a fifth of the rest, 15 %, validates."""
    labels, groups = (np.array(column) for column in zip(*((i.label, i.group) for i in items), strict=True))
    splits = np.full(len(items), "train", dtype=object)
    rest, test = next(StratifiedGroupKFold(4).split(items, labels, groups))
    _, val = next(StratifiedGroupKFold(5).split(rest, labels[rest], groups[rest]))
    splits[test], splits[rest[val]] = "test", "val"
    return splits.tolist()


def test_shares_are_as_near_as_scikit_learns() -> None:
    ours, theirs = 0.0, 0.0
    for seed in range(10):
        items = patients([random.Random(size + 30 * seed).randint(1, 60) for size in range(30)], seed)
        ours += chi_squared(items, draw_group_splits(items, SHARES, seed))
        theirs += chi_squared(items, scikit_learns(items))
    assert ours < 1.2 * theirs


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_nearer_than_those_of_random_draws(seed: int) -> None:
    """Which deal as many patients out as there should be."""
    sizes = [random.Random(size + 30 * seed).randint(1, 60) for size in range(30)]
    items = patients(sizes, seed)
    splits = draw_group_splits(items, SHARES, seed)
    draw = random.Random(seed)
    others = []
    for _ in range(100):
        names = draw.sample([f"patient{number}" for number in range(30)], 30)
        dealt = {name: ("test" if k < 8 else "val" if k < 12 else "train") for k, name in enumerate(names)}
        others.append(chi_squared(items, [dealt[item.group] for item in items]))
    assert sum(other < chi_squared(items, splits) for other in others) <= 10
    counts = Counter(splits)
    for name, share in SHARES.items():
        assert counts[name] / len(items) == pytest.approx(share, abs=0.04)


def test_few_groups_of_one_class_each_serve_all_splits() -> None:
    """The largest trains; the smallest is what a split that has none is given."""
    items = [
        Item(label, "all", f"{label}{k}")
        for label in (0, 1)
        for k, n in enumerate((9, 4, 3))
        for _ in range(n)
    ]
    splits = dict(zip([item.group for item in items], draw_group_splits(items, SHARES, 0), strict=True))
    for label in (0, 1):
        assert splits[f"{label}0"] == "train"
        assert {splits[f"{label}{k}"] for k in range(3)} == {"train", "test", "val"}


def test_domains_have_their_shares_too() -> None:
    items = [
        Item(label, domain, f"{domain}{patient}")
        for domain, count in (("day", 60), ("night", 20))
        for patient in range(count)
        for label in (0, 0, 1)
    ]
    splits = draw_group_splits(items, SHARES, 0)
    found = Counter((item.domain, split) for item, split in zip(items, splits, strict=True))
    assert [found["day", name] for name in ("train", "test", "val")] == [108, 45, 27]
    assert [found["night", name] for name in ("train", "test", "val")] == [36, 15, 9]


def test_a_draw_depends_on_seed_and_names_but_not_on_the_order() -> None:
    items = patients([7] * 60, 0)
    drawn = dict(zip([item.group for item in items], draw_group_splits(items, SHARES, 0), strict=True))
    shuffled = random.Random(1).sample(items, len(items))
    assert (
        dict(zip([i.group for i in shuffled], draw_group_splits(shuffled, SHARES, 0), strict=True)) == drawn
    )
    assert draw_group_splits(items, SHARES, 1) != draw_group_splits(items, SHARES, 0)
    assert set(draw_group_splits(items, {}, 0)) == {"train"}


def test_images_without_groups_have_exact_shares() -> None:
    items = [Item(index % 3, "all", str(index)) for index in range(300)]
    found = Counter(zip([item.label for item in items], draw_group_splits(items, SHARES, 0), strict=True))
    assert all(found[label, "test"] == 25 and found[label, "val"] == 15 for label in range(3))


FRACTIONS = (0.001, 0.05, 0.15, 0.3, 0.5, 0.8, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_fractions_keep_whole_groups_and_smaller_ones_are_part_of_larger(seed: int) -> None:
    sizes = [random.Random(size + 60 * seed).randint(1, 20) for size in range(60)]
    items = patients(sizes, seed)
    splits = draw_group_splits(items, {"val": 0.2, "test": 0.2}, seed)
    found = []
    for fraction in FRACTIONS:
        kept = keep_group_fraction(items, splits, ["train", "val"], fraction, seed)
        groups = {item.group for item, keep in zip(items, kept, strict=True) if keep}
        assert kept == [item.group in groups for item in items]
        assert all(keep for keep, split in zip(kept, splits, strict=True) if split == "test")
        for part in ("train", "val"):
            of_part = [keep for keep, split in zip(kept, splits, strict=True) if split == part]
            assert abs(sum(of_part) - fraction * len(of_part)) <= 20
            assert any(of_part)
        found.append(groups)
    assert all(small <= large for small, large in pairwise(found))
    assert found[-1] == {item.group for item in items}


def test_a_fraction_has_the_classes_shares() -> None:
    """One in five patients is ill: so is one in five of those that are kept."""
    items = [Item(int(patient % 5 == 0), "all", str(patient)) for patient in range(100) for _ in range(3)]
    for fraction, ill in ((0.1, 2), (0.25, 5), (0.5, 10)):
        kept = keep_group_fraction(items, ["train"] * 300, ["train"], fraction, 0)
        found = Counter(item.label for item, keep in zip(items, kept, strict=True) if keep)
        assert found == {1: 3 * ill, 0: 300 * fraction - 3 * ill}
