import itertools
import random
from collections import Counter
from typing import Any

import numpy as np
import torch
from PIL import Image

from stochca.config.training import Augmentation, Training
from stochca.data.batches import evaluation_batches, images_of_step, training_batches
from stochca.data.preprocessing import Preprocessing
from tests.stochca.tiny import PREPROCESSING, ColouredSquares

NO_AUGMENTATION = Augmentation(scale=(1.0, 1.0), ratio=(1.0, 1.0), horizontal_flip=0.0)


def options(**values: object) -> Training:
    return Training(**{"steps": 1, "batch_size": 4, "workers": 0, "augmentation": NO_AUGMENTATION, **values})  # type: ignore[arg-type]


class Numbered:
    """Image i is grey level i, and its label is i."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (16, 16), (index, index, index)), index


def labels(images: int, **arguments: Any) -> list[int]:
    batches = training_batches(Numbered(images), PREPROCESSING, options(), seed=0, steps=9, **arguments)
    return list(itertools.chain.from_iterable(batch.tolist() for _, batch in batches))


def test_every_epoch_shows_every_image_once_in_another_order() -> None:
    order = labels(12)
    epochs = [order[:12], order[12:24], order[24:36]]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_batches_are_full_even_with_fewer_images_than_a_batch() -> None:
    order = labels(3)
    assert len(order) == 36
    assert all(order.count(label) == 12 for label in range(3))


def test_starting_later_continues_the_same_stream() -> None:
    settings = options(augmentation=Augmentation(color_jitter=0.5))
    whole, rest = (
        list(training_batches(ColouredSquares(10), PREPROCESSING, settings, seed=1, steps=9, start=start))
        for start in (0, 5)
    )
    assert len(rest) == 4
    for (images, batch_labels), (expected, expected_labels) in zip(rest, whole[5:], strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(batch_labels, expected_labels)


def test_augmentation_differs_between_epochs_and_seeds() -> None:
    settings = options(batch_size=3, augmentation=Augmentation(scale=(0.2, 0.5)))
    images = ColouredSquares(3)
    (first, order), (second, again) = training_batches(images, PREPROCESSING, settings, seed=0, steps=2)
    assert not torch.equal(first[order.argsort()], second[again.argsort()])
    (other, _), _ = training_batches(images, PREPROCESSING, settings, seed=1, steps=2)
    assert not torch.equal(first, other)


def test_loading_leaves_the_global_randomness_alone() -> None:
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]
    list(
        training_batches(
            ColouredSquares(8),
            PREPROCESSING,
            options(augmentation=Augmentation(color_jitter=0.3)),
            seed=0,
            steps=9,
        )
    )
    list(evaluation_batches(ColouredSquares(8), PREPROCESSING, batch_size=3))
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_evaluation_shows_the_whole_image_normalised_in_order() -> None:
    preprocessing = Preprocessing(image_size=16, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3))
    images = ColouredSquares(5)
    batches = list(evaluation_batches(images, preprocessing, batch_size=2))
    assert [len(batch) for batch, _ in batches] == [2, 2, 1]
    pixels = (
        torch.from_numpy(np.stack([np.asarray(images[i][0]) for i in range(5)])).permute(0, 3, 1, 2) / 255
    )
    expected = (pixels - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.1, 0.2, 0.3]).view(
        3, 1, 1
    )
    torch.testing.assert_close(torch.cat([batch for batch, _ in batches]), expected)


def test_every_batch_holds_equally_many_of_each_domain() -> None:
    domains = ["sketch"] * 3 + ["photo"] * 9  # images 0-2 and 3-11
    settings = options(batch_size=6)
    batches, rest = (
        list(
            training_batches(
                Numbered(12), PREPROCESSING, settings, domains=domains, seed=0, steps=9, start=start
            )
        )
        for start in (0, 4)
    )
    shown: dict[str, list[int]] = {"sketch": [], "photo": []}
    for _, batch in batches:
        for label in batch.tolist():
            shown[domains[label]].append(label)
        assert sum(label < 3 for label in batch.tolist()) == 3
    epochs = [shown["photo"][start : start + 9] for start in (0, 9, 18)]  # 9 steps of 3: 3 epochs
    assert all(sorted(epoch) == list(range(3, 12)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert all(sorted(shown["sketch"][start : start + 3]) == [0, 1, 2] for start in range(0, 27, 3))
    assert [b.tolist() for _, b in rest] == [b.tolist() for _, b in batches[4:]]


def test_mixing_pairs_every_domain_with_every_domain() -> None:
    domains = np.repeat(["a", "b", "c"], 4)
    pairs = set()
    for step in range(1, 10):
        settings = options(batch_size=6, augmentation=Augmentation(mixup=0.3))
        batch = domains[images_of_step(12, settings, domains=domains.tolist(), seed=0, step=step)]
        assert Counter(batch) == {"a": 2, "b": 2, "c": 2}
        pairs |= {(one, other) for one, other in zip(batch, batch[::-1], strict=True) if one <= other}
    assert len(pairs) == 6  # timm's Mixup mixes a batch with its reverse


def balanced(counts: list[int], **arguments: Any) -> list[list[int]]:
    """The classes in every batch, of so many images of each class."""
    classes = np.repeat(np.arange(len(counts)), counts)
    images = Numbered(len(classes))
    batches = training_batches(images, PREPROCESSING, options(), labels=classes, seed=0, steps=9, **arguments)
    return [classes[batch.numpy()].tolist() for _, batch in batches]


def test_classes_come_equally_often_whatever_the_size_of_batches() -> None:
    shown = list(itertools.chain.from_iterable(balanced([2, 30, 8])))  # 9 steps of 4: 12 turns of 3 classes
    assert [shown.count(label) for label in range(3)] == [12, 12, 12]
    turns = [shown[start : start + 3] for start in range(0, 36, 3)]
    assert all(sorted(turn) == [0, 1, 2] for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 1  # in one order, mixup would always pair the same classes


def test_every_class_has_epochs_of_its_own() -> None:
    classes = np.repeat([0, 1], [3, 9])
    batches = training_batches(
        Numbered(12), PREPROCESSING, options(batch_size=6), labels=classes, seed=0, steps=9
    )
    shown = list(itertools.chain.from_iterable(batch.tolist() for _, batch in batches))
    rare, common = ([image for image in shown if classes[image] == label] for label in (0, 1))
    assert all(sorted(rare[start : start + 3]) == [0, 1, 2] for start in range(0, 27, 3))
    assert all(sorted(common[start : start + 9]) == list(range(3, 12)) for start in (0, 9, 18))


def test_balanced_batches_resume_and_are_shared_among_ranks() -> None:
    whole = balanced([2, 30, 8])
    assert balanced([2, 30, 8], start=5) == whole[5:]
    ranks = [balanced([2, 30, 8], rank=rank, ranks=2) for rank in range(2)]
    for batch, *shares in zip(whole, *ranks, strict=True):
        assert sorted(batch) == sorted(itertools.chain.from_iterable(shares))


def test_the_images_of_a_step_are_those_that_were_shown() -> None:
    classes = np.repeat([0, 1], [3, 9])
    batches = training_batches(Numbered(12), PREPROCESSING, options(), labels=classes, seed=3, steps=9)
    for step, (_, batch) in enumerate(batches, start=1):
        assert images_of_step(12, options(), labels=classes, seed=3, step=step) == batch.tolist()
