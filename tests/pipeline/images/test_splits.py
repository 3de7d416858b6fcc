import random
from collections import Counter
from itertools import pairwise

import pytest

from pipeline.images.splits import Item, draw_splits, keep_fraction

SHARES = {"test": 0.25, "val": 0.15}


def items(*, labels: int = 3, per_label: int = 100, domains: tuple[str, ...] = ("all",)) -> list[Item]:
    return [
        Item(label, domain, f"{label}/{domain}/{index}")
        for label in range(labels)
        for domain in domains
        for index in range(per_label)
    ]


def test_every_class_and_domain_has_its_shares() -> None:
    images = items(labels=3, per_label=40, domains=("photo", "sketch"))
    found = Counter(
        (item.label, item.domain, split)
        for item, split in zip(images, draw_splits(images, SHARES, 0), strict=True)
    )
    for label in range(3):
        for domain in ("photo", "sketch"):
            assert [found[label, domain, split] for split in ("test", "val", "train")] == [10, 6, 24]


def test_groups_are_never_divided() -> None:
    images = [Item(index % 3, "all", f"group{index % 3}-{index // 9}") for index in range(270)]
    splits: dict[str, set[str]] = {}
    for item, split in zip(images, draw_splits(images, SHARES, 0), strict=True):
        splits.setdefault(item.group, set()).add(split)
    assert all(len(found) == 1 for found in splits.values())
    assert Counter(next(iter(found)) for found in splits.values()) == {"train": 54, "test": 24, "val": 12}


def test_a_draw_depends_on_seed_and_names_but_not_on_the_order() -> None:
    images = items()
    drawn = dict(zip(images, draw_splits(images, SHARES, 0), strict=True))
    shuffled = random.Random(0).sample(images, len(images))
    assert dict(zip(shuffled, draw_splits(shuffled, SHARES, 0), strict=True)) == drawn
    assert draw_splits(images, SHARES, 1) != list(drawn.values())


@pytest.mark.parametrize("added", range(8))
def test_adding_an_image_moves_at_most_one_other_at_each_cut(added: int) -> None:
    images = items()
    before = dict(zip(images, draw_splits(images, SHARES, 0), strict=True))
    more = [*images, Item(1, "all", f"new{added}")]
    after = dict(zip(more, draw_splits(more, SHARES, 0), strict=True))
    moved = [item for item in images if before[item] != after[item]]
    assert len(moved) <= 2
    assert all(item.label == 1 for item in moved)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, {"train": 1}),
        (2, {"train": 1, "test": 1}),
        (3, {"train": 1, "test": 1, "val": 1}),
        (4, {"train": 2, "test": 1, "val": 1}),
    ],
)
def test_small_classes_serve_train_then_test_then_val(count: int, expected: dict[str, int]) -> None:
    assert Counter(draw_splits(items(labels=1, per_label=count), SHARES, 0)) == expected


def test_one_split_alone_can_be_drawn() -> None:
    images = items(labels=2, per_label=20)
    assert Counter(draw_splits(images, {"val": 0.1}, 0)) == {"train": 36, "val": 4}
    assert Counter(draw_splits(images, {}, 0)) == {"train": 40}


def kept(images: list[Item], fraction: float, seed: int, split: str = "train") -> list[bool]:
    """Of images that are all in one split."""
    return keep_fraction(images, [split] * len(images), [split], fraction, seed)


def test_smaller_fractions_are_subsets_of_larger_ones() -> None:
    images = items(labels=4, per_label=37, domains=("a", "b"))
    chosen = [
        {item for item, keep in zip(images, kept(images, fraction, 0), strict=True) if keep}
        for fraction in (0.001, 0.01, 0.1, 0.25, 0.5, 0.9, 1.0)
    ]
    assert all(small <= large for small, large in pairwise(chosen))
    assert chosen[0] == set()  # rounded, so that a class may be left without images
    assert len(chosen[4]) == 8 * 19  # half of 37, rounded
    assert chosen[-1] == set(images)


def test_fractions_keep_groups_whole_and_differ_by_seed() -> None:
    images = [Item(0, "all", f"group{index // 5}") for index in range(100)]
    chosen = kept(images, 0.5, 0)
    assert sum(chosen) == 50
    assert all(len(set(chosen[start : start + 5])) == 1 for start in range(0, 100, 5))
    assert kept(images, 0.5, 1) != chosen


def test_dithered_fractions_are_right_in_total_nested_and_never_off_by_one() -> None:
    images = items(labels=300, per_label=3)
    chosen = [kept(images, fraction, 0, "val") for fraction in (0.15, 0.3, 0.5, 1.0)]
    assert [sum(part) for part in chosen] == pytest.approx([135, 270, 450, 900], abs=30)
    assert all(not small or large for pair in pairwise(chosen) for small, large in zip(*pair, strict=True))
    counts = Counter(item.label for item, keep in zip(images, chosen[1], strict=True) if keep)
    assert {counts[label] for label in range(300)} == {0, 1}  # 0.9 of 3
    assert sum(kept(images, 0.15, 0)) == 0  # rounded, there would be none
