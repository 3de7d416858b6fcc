import itertools
import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stochca.config.training import Augmentation, Training
from stochca.data import loaders
from stochca.data.loaders import InMemory, Joined, Preprocessing, evaluation_batches, training_batches
from stochca.errors import UserError
from tests.stochca.tiny import PREPROCESSING, ColouredSquares

NO_AUGMENTATION = Augmentation(scale=(1.0, 1.0), ratio=(1.0, 1.0), horizontal_flip=0.0)


def options(**values: object) -> Training:
    return Training(**{"steps": 9, "batch_size": 4, "workers": 0, "augmentation": NO_AUGMENTATION, **values})  # type: ignore[arg-type]


class Numbered:
    """Image i is grey level i, and its label is i."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (16, 16), (index, index, index)), index


def labels(images: int, **arguments: Any) -> list[int]:
    batches = training_batches(Numbered(images), PREPROCESSING, options(), seed=0, **arguments)
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
    whole = list(training_batches(ColouredSquares(10), PREPROCESSING, settings, seed=1))
    rest = list(training_batches(ColouredSquares(10), PREPROCESSING, settings, seed=1, start=5))
    assert len(rest) == 4
    for (images, batch_labels), (expected, expected_labels) in zip(rest, whole[5:], strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(batch_labels, expected_labels)


def test_augmentation_differs_between_epochs_and_seeds() -> None:
    settings = options(batch_size=3, steps=2, augmentation=Augmentation(scale=(0.2, 0.5)))
    images = ColouredSquares(3)
    (first, order), (second, again) = training_batches(images, PREPROCESSING, settings, seed=0)
    assert not torch.equal(first[order.argsort()], second[again.argsort()])
    (other, _), _ = training_batches(images, PREPROCESSING, settings, seed=1)
    assert not torch.equal(first, other)


def test_loading_leaves_the_global_randomness_alone() -> None:
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]
    list(
        training_batches(
            ColouredSquares(8), PREPROCESSING, options(augmentation=Augmentation(color_jitter=0.3)), seed=0
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


def test_evaluation_crops_the_centre_of_a_wide_image() -> None:
    image = Image.new("RGB", (48, 16), (255, 0, 0))
    image.paste((0, 255, 0), (16, 0, 32, 16))
    tensor = PREPROCESSING.evaluation()(image)
    assert tensor.shape == (3, 16, 16)
    torch.testing.assert_close(tensor[1], torch.ones(16, 16))
    torch.testing.assert_close(tensor[0], -torch.ones(16, 16))


def test_decoded_images_are_equal_and_picklable() -> None:
    images = ColouredSquares(4)
    memory = pickle.loads(pickle.dumps(InMemory([images[i] for i in range(4)])))
    assert all(
        memory[i][0].tobytes() == images[i][0].tobytes() and memory[i][1] == images[i][1] for i in range(4)
    )


def test_images_are_kept_as_long_as_all_of_them_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Sizes:
        def __init__(self, *sides: int) -> None:
            self.sides = sides

        def __len__(self) -> int:
            return len(self.sides)

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            asked.append(index)
            return Image.new("RGB", (self.sides[index],) * 2), 0

    monkeypatch.setattr(loaders, "CACHE_BYTES", 3 * 10 * 10 * 4)
    assert isinstance(loaders.keep_in_memory(Sizes(10, 10, 10, 10)), InMemory)
    for sides, decoded in (((10,) * 5, 1), ((2, 10, 40, 10), 3)):
        asked.clear()
        images = Sizes(*sides)
        assert loaders.keep_in_memory(images) is images
        assert len(asked) == decoded


def test_every_batch_holds_equally_many_of_each_domain() -> None:
    domains = ["sketch"] * 3 + ["photo"] * 9  # images 0-2 and 3-11
    batches = list(
        training_batches(Numbered(12), PREPROCESSING, options(batch_size=6), domains=domains, seed=0)
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
    rest = training_batches(
        Numbered(12), PREPROCESSING, options(batch_size=6), domains=domains, seed=0, start=4
    )
    assert [b.tolist() for _, b in rest] == [b.tolist() for _, b in batches[4:]]


def test_a_square_is_made_first_and_its_centre_evaluated() -> None:
    preprocessing = Preprocessing(16, (0.0,) * 3, (1.0,) * 3, resize=24)
    image = Image.new("RGB", (240, 48), (0, 0, 0))
    image.paste((255, 0, 0), (40, 8, 200, 40))  # of the square of 24 pixels, the middle 16
    tensor = preprocessing.evaluation()(image)
    assert tensor.shape == (3, 16, 16)
    assert tensor[0, 1:-1, 1:-1].min() > 0.99  # at the rim the resizing blurs
    cropped = preprocessing.training(Augmentation(crop="random", horizontal_flip=0.0))
    edges = set()
    for seed in range(40):
        random.seed(seed)
        torch.manual_seed(seed)
        crop = cropped(image)
        assert crop.shape == (3, 16, 16)
        edges.add((crop[0, 8, 0].item() > 0.5, crop[0, 8, -1].item() > 0.5))
    assert len(edges) >= 2  # not always the same place
    resized = torch.from_numpy(np.asarray(image.resize((24, 24), Image.Resampling.BICUBIC)) / 255).float()
    places = [
        torch.allclose(crop, resized[y : y + 16, x : x + 16].permute(2, 0, 1), atol=1e-6)
        for y in range(9)
        for x in range(9)
    ]
    assert any(places)  # a part of the square as it is, not resized again


def test_a_random_crop_needs_a_larger_square() -> None:
    with pytest.raises(UserError, match="set resize"):
        PREPROCESSING.training(Augmentation(crop="random"))


def test_grayscale_and_hue() -> None:
    image = Image.new("RGB", (16, 16), (200, 40, 40))
    grey = PREPROCESSING.training(Augmentation(grayscale=1.0, horizontal_flip=0.0))(image)
    assert torch.allclose(grey[0], grey[1])
    hues = set()
    for seed in range(8):
        torch.manual_seed(seed)
        turned = PREPROCESSING.training(Augmentation(color_jitter=(0.0, 0.0, 0.0, 0.5)))(image)
        hues.add(int(turned[:, 8, 8].argmax()))
    assert len(hues) > 1  # red does not stay the strongest


def test_joined_images_are_those_of_the_parts_in_order() -> None:
    joined = Joined(Numbered(3), Numbered(2))
    assert [joined[i][1] for i in range(len(joined))] == [0, 1, 2, 0, 1]
    with pytest.raises(IndexError):
        joined[5]
