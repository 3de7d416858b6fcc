import pickle
import random
import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stochca.data.images import CheckedLabels, joined_images, keep_in_memory, labels_of, some_of
from stochca.errors import UserError
from tests.stochca.tiny import ColouredSquares


def test_decoded_images_are_equal_and_picklable() -> None:
    images = ColouredSquares(4)
    memory = pickle.loads(pickle.dumps(keep_in_memory(images)))
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

    monkeypatch.setattr("stochca.data.images.CACHE_BYTES", 3 * 10 * 10 * 4)
    assert isinstance(keep_in_memory(Sizes(10, 10, 10, 10)), list)
    for sides, decoded in (((10,) * 5, 1), ((2, 10, 40, 10), 3)):
        asked.clear()
        images = Sizes(*sides)
        assert keep_in_memory(images) is images
        assert len(asked) == decoded + 2 * len(sides)  # each is read twice first, to see that it stays


def test_images_that_draw_at_random_are_not_kept() -> None:
    class Rotated(ColouredSquares):
        generator = random.Random(0)

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            image, label = super().__getitem__(index)
            return image.rotate(90 * self.generator.randrange(4)), label

    class Flipped(ColouredSquares):
        probability = 0.5

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            image, label = super().__getitem__(index)
            flips = torch.rand(1) < self.probability
            return (image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if flips else image), label

    class SeldomFlipped(Flipped):
        probability = 0.1

    class MostlyFlipped(Flipped):
        probability = 0.9

    before = torch.get_rng_state()
    assert isinstance(keep_in_memory(ColouredSquares(20)), list)
    partly = joined_images(ColouredSquares(100), Flipped(20))
    for images in (Rotated(20), Flipped(20), SeldomFlipped(64), MostlyFlipped(64), partly):
        assert keep_in_memory(images) is images
    assert labels_of(images).tolist() == ColouredSquares(100).labels + ColouredSquares(20).labels
    assert torch.equal(torch.get_rng_state(), before)


def test_labels_are_those_of_the_images_whatever_else_a_collection_has() -> None:
    class Fine(ColouredSquares):
        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            return super().__getitem__(index)[0], index // 2

    class Known(Fine):
        known_labels = (7, 8, 9)

    images = Fine(6)
    assert images.labels != [0, 0, 1, 1, 2, 2]
    assert labels_of(images).tolist() == [0, 0, 1, 1, 2, 2]
    assert labels_of(Known(3)).tolist() == [7, 8, 9]


def test_joined_images_are_those_of_the_parts_in_order() -> None:
    first, second = ColouredSquares(3), ColouredSquares(2, seed=1)
    joined = joined_images(first, second)
    assert len(joined) == 5
    parts = [*(first[i] for i in range(3)), *(second[i] for i in range(2))]
    for i, (image, label) in enumerate(parts):
        assert (joined[i][0].tobytes(), joined[i][1]) == (image.tobytes(), label)


def test_some_images_are_those_of_their_rows() -> None:
    images = ColouredSquares(5)
    some = some_of(images, range(3, 5))
    assert [some[i][0].tobytes() for i in range(len(some))] == [images[i][0].tobytes() for i in (3, 4)]


def test_labels_are_whole_numbers_of_any_kind() -> None:
    arrays = [np.int32(1), np.uint8(1), np.array(1), np.array([1], np.uint8)]
    kinds: list[Any] = [1, True, *arrays, torch.tensor(1), torch.tensor([1], dtype=torch.int32)]
    images = CheckedLabels([(Image.new("RGB", (1, 1)), kind) for kind in kinds], "training images", classes=2)
    assert [(type(label), label) for _, label in pickle.loads(pickle.dumps(images))] == [(int, 1)] * len(
        kinds
    )
    assert labels_of(images).tolist() == [1] * len(kinds)


@pytest.mark.parametrize(
    "label", [3, -1, np.int64(-1), 1.0, np.float64(1), "1", None, np.array([0, 1]), torch.zeros(3)]
)
def test_labels_that_are_no_class_are_refused(label: Any) -> None:
    class Known(ColouredSquares):
        known_labels: Any = (0, label)

    picture = Image.new("RGB", (1, 1))
    sentence = f"image 1 of the training images has the label {label!r}, where a whole number from 0 to 2,"
    with pytest.raises(UserError, match=re.escape(sentence)):
        CheckedLabels([(picture, 0), (picture, label)], "training images", classes=3)[1]
    with pytest.raises(UserError, match=re.escape(sentence)):
        labels_of(CheckedLabels(Known(2), "training images", classes=3))
    if isinstance(label, int):
        Known.known_labels = np.array([0, label])
        with pytest.raises(UserError, match=f"image 1 of .* has the label .*{label}"):
            labels_of(CheckedLabels(Known(2), "training images", classes=3))


def test_items_that_are_no_pairs_are_refused() -> None:
    picture = Image.new("RGB", (1, 1))
    items: list[Any] = [{"image": picture, "label": 0}, (picture, 0, "path")]
    for item, found in zip(items, ("dict", "tuple"), strict=True):
        with pytest.raises(UserError, match=f"image 0 of the validation images is given as {found}, where"):
            CheckedLabels([item], "validation images")[0]
