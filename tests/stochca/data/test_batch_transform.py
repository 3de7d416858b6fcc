"""Batches, against the same transforms applied image by image."""

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stochca.compute.randomness import Stream, derived_seed, isolated
from stochca.config import LpFt, Method
from stochca.config.training import Augmentation
from stochca.data.batches import evaluation_batches, images_of_step, training_batches
from stochca.data.images import keep_in_memory
from stochca.data.preprocessing import Preprocessing
from stochca.training.fit import fit
from stochca.training.inputs import Inputs
from tests.stochca.tiny import ColouredSquares, tiny_vit
from tests.stochca.training.test_fit import settings

PREPROCESSING = Preprocessing(image_size=16, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
AUGMENTATIONS = {
    "default": Augmentation(),
    "colours": Augmentation(color_jitter=(0.4, 0.4, 0.4, 0.1), grayscale=0.5, vertical_flip=0.5),
    "policy": Augmentation(auto_augment="rand-m9-mstd0.5"),
    "erasing": Augmentation(random_erasing=0.7),
    "square": Augmentation(crop="random"),
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("workers", [0, 1])
def test_training_batches_are_those_of_images_one_by_one(name: str, workers: int) -> None:
    preprocessing = PREPROCESSING
    if name == "square":
        preprocessing = Preprocessing(16, PREPROCESSING.mean, PREPROCESSING.std, resize=20)
    options = settings(batch_size=7, workers=workers, augmentation=AUGMENTATIONS[name])
    images, transform = ColouredSquares(11), preprocessing.training(options.augmentation)
    batches = training_batches(images, preprocessing, options, seed=5, steps=3)
    for step, (batch, labels) in enumerate(batches, start=1):
        order = images_of_step(len(images), options, seed=5, step=step)
        assert labels.tolist() == [images.labels[index] for index in order]
        for place, index in enumerate(order):
            with isolated(derived_seed(5, Stream.IMAGE, (step - 1) * 7 + place)):
                expected = transform(images[index][0])
            assert torch.equal(batch[place], expected)


@pytest.mark.parametrize("resize", [None, 20])
def test_evaluation_batches_are_those_of_images_one_by_one(resize: int | None) -> None:
    preprocessing = Preprocessing(14, PREPROCESSING.mean, PREPROCESSING.std, resize=resize)
    images, transform = ColouredSquares(10), preprocessing.evaluation()
    batches = list(evaluation_batches(images, preprocessing, batch_size=4))
    assert torch.equal(
        torch.cat([batch for batch, _ in batches]), torch.stack([transform(images[i][0]) for i in range(10)])
    )
    assert torch.cat([labels for _, labels in batches]).tolist() == images.labels


class Drawing(ColouredSquares):
    """Images that are drawn anew whenever they are asked for."""

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        level = random.randrange(256), int(np.random.randint(256)), int(torch.randint(256, ()))
        return Image.new("RGB", (16, 16), level), index


def test_what_images_draw_depends_on_seed_and_step_too() -> None:
    def batches(**options: Any) -> list[torch.Tensor]:
        return [
            batch for batch, _ in training_batches(Drawing(8), PREPROCESSING, settings(), steps=12, **options)
        ]

    whole = batches(seed=0)
    assert all(torch.equal(*pair) for pair in zip(batches(seed=0, start=4), whole[4:], strict=True))
    assert len({float(image[0, 8, 8]) for batch in whole for image in batch}) > 50


class Counted(ColouredSquares):
    """Counts how often each image is decoded."""

    def __init__(self, number: int, seed: int = 0) -> None:
        super().__init__(number, seed)
        self.decoded: Counter[int] = Counter()

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        self.decoded[index] += 1
        return super().__getitem__(index)


def run(train: Counted, validation: Counted) -> None:
    """12 steps of 8 images, four evaluations, and a head fitted on all features before."""
    fit(
        Inputs(
            tiny_vit(),
            train,
            validation,
            method=Method(phases=LpFt(C=(1.0,))),
            settings=settings(drop_path=0.0),
            preprocessing=PREPROCESSING,
        ),
        device=torch.device("cpu"),
    )


def test_a_small_sets_images_are_decoded_once_in_a_run() -> None:
    train, validation = Counted(20), Counted(9, seed=1)
    run(train, validation)
    assert train.decoded == Counter([*range(20)] * 3)  # twice to see whether they are the same each time
    assert max(validation.decoded.values()) == 1 + 2 * 2  # before anything is kept, too


def test_a_set_that_is_too_large_for_memory_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stochca.data.images.CACHE_BYTES", 9 * 3 * 16 * 16)
    train, validation = Counted(10), Counted(9, seed=1)
    assert keep_in_memory(train) is train
    assert train.decoded == Counter([*range(10), *range(10), 0])  # the last to see how large it is
    run(train, validation)
    assert train.decoded.total() > 12 * 8
    assert max(validation.decoded.values()) == 1 + 2 * 2  # just small enough
