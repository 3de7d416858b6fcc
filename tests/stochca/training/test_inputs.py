"""What a run is made from: weights of classes against the images that batches show."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from stochca.config import Method
from stochca.config.training import Training
from stochca.data.batches import images_of_step
from stochca.errors import UserError
from stochca.training.fit import fit
from stochca.training.inputs import Inputs, check_classes, check_images
from tests.stochca.tiny import PREPROCESSING, ColouredSquares, tiny_vit


def test_balanced_weights_make_up_for_what_is_shown_of_each_domain() -> None:
    """Over ten steps, in which batches show 100 images of one domain once and 20 of another five times."""
    labels = np.repeat([0, 1, 0, 1], [90, 10, 2, 18])
    domains = ["large"] * 100 + ["small"] * 20
    images = [(Image.new("RGB", (1, 1)), int(label)) for label in labels]
    settings = Training(steps=10, batch_size=20, class_weights="balanced")
    inputs = Inputs(
        tiny_vit(),
        images,
        images[:1],
        method=Method(),
        settings=settings,
        preprocessing=PREPROCESSING,
        domains=domains,
        classes=["a", "b"],
    )
    shown = np.concatenate(
        [images_of_step(len(images), settings, domains=domains, seed=0, step=step) for step in range(1, 11)]
    )
    for weights, seen in (
        (inputs.class_weights, shown),
        (inputs.class_weights_of_images, np.arange(len(images))),
    ):
        counted = np.array(weights)[labels[seen]]
        assert counted.mean() == pytest.approx(1)
        assert counted[labels[seen] == 0].sum() == pytest.approx(counted[labels[seen] == 1].sum())


class Noisy(ColouredSquares):
    """Drawn anew each time that they are read."""

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        noise = np.random.default_rng(np.random.randint(2**31)).integers(0, 255, (16, 16, 3), np.uint8)
        return Image.fromarray(noise), self.labels[index]


def test_images_that_differ_each_time_are_for_training_alone() -> None:
    steady, noisy = ColouredSquares(20), Noisy(20)
    make = partial(
        Inputs, tiny_vit(), method=Method(), settings=Training(steps=9), preprocessing=PREPROCESSING
    )
    inputs = make(noisy, steady)
    check_images(inputs)
    assert inputs.decoded().train is noisy
    with pytest.raises(UserError, match="validation images differ each time that they are read"):
        check_images(make(steady, noisy))
    check_images(make(steady, noisy, refit=True))
    with pytest.raises(UserError, match="domains names those of 20 images, but 40 are trained on"):
        check_images(make(steady, noisy, refit=True, domains=["a", "b"] * 10))


def test_folders_that_number_their_classes_differently_are_refused(tmp_path: Path) -> None:
    def folder(split: str, *classes: str, empty: tuple[str, ...] = (), **options: Any) -> ImageFolder:
        for name in (*classes, *empty):
            (tmp_path / split / name).mkdir(parents=True)
            if name in classes:
                Image.new("RGB", (1, 1)).save(tmp_path / split / name / "0.png")
        return ImageFolder(tmp_path / split, allow_empty=True, **options)

    train = folder("train", "ant", "bee", "cat")
    make = partial(
        Inputs, tiny_vit(), method=Method(), settings=Training(steps=9), preprocessing=PREPROCESSING
    )
    sentence = "class 1 is 'bee' in the training images, but 'cat' in the validation images; number"
    with pytest.raises(UserError, match=sentence):
        fit(make(train, folder("lacks", "ant", "cat")))
    for alike in (
        folder("lacks_the_last", "ant", "bee"),
        folder("empty", "ant", "cat", empty=("bee",)),
        folder("transformed", "ant", "cat", target_transform=(0, 2).__getitem__),
        ColouredSquares(3),
    ):
        check_classes(make(train, alike))
