import time

import pytest

from pipeline.datasets.split_names import (
    names_contents,
    refuse_overlaps,
    split_named,
    splits_among,
    without_partner,
)
from stochca.errors import UserError


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *(("train", "train"), ("Training", "train"), ("TRAIN_IMAGES", "train"), ("trainset", "train")),
        *(("val", "val"), ("valid", "val"), ("Validation-Set", "val"), ("dev", "val"), ("val2017", "val")),
        *(("trainval", "train"), ("Eval", "test"), ("evaluation_set", "test")),
        *(("test", "test"), ("testing", "test"), ("images_test", "test"), ("test (2)", "test")),
        *(("cat", None), ("", None), ("images", None), ("2017", None), ("train_test", None)),
        *(
            ("trains", None),
            ("test_tube", None),
            ("contest", None),
            ("device", None),
            ("train station", None),
        ),
    ],
)
def test_the_split_that_a_name_speaks_of(name: str, split: str | None) -> None:
    assert split_named(name) == split


def test_names_that_are_no_classes() -> None:
    assert all(map(names_contents, ("images", "Labels", "image_data", "imgs 2", "masks", "annotations")))
    assert not any(map(names_contents, ("", "cat", "imagery", "setter", "photographer")))


def test_hostile_names_take_no_time() -> None:
    start = time.perf_counter()
    for part in ("images", "data", "set_", "train", "_", "seg0", "sets"):
        split_named(part * 2000 + "!x")
        names_contents(part * 2000 + "!x")
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("ISIC_2019_Training_Input", "ISIC_2019_Test_Input"), ("train", "test")),
        (("train-jpg", "test-jpg"), ("train", "test")),
        (("stage_1_train_images", "stage_1_test_images"), ("train", "test")),
        (("petsTrain", "petsTest"), ("train", "test")),
        (("MNISTTrain", "MNISTTest"), ("train", "test")),
        (("pets_trainset", "pets_testset"), ("train", "test")),
        (("rps", "rps-test-set"), ("train", "test")),
        (("horse-or-human", "validation-horse-or-human"), ("train", "val")),
        (("a_train", "a_test", "b"), ("train", "test", None)),
        (("rps", "rps-test", "rps-train"), (None, "test", "train")),
        (("test_tube", "train_station"), (None, None)),
        (("tube", "test tube", "cup"), (None, None, None)),
        (("toy", "toy train"), (None, None)),
        (("\u732b_train", "\u72ac_test"), (None, None)),
        (("train", "val"), ("train", "val")),
        (("images", "test"), (None, "test")),
        (("real", "sketch"), (None, None)),
        (("birds_train", "birds_eval"), ("train", "test")),
        (("pets_trainval", "pets_test"), ("train", "test")),
        (("PetsTrainVal", "PetsTest"), ("train", "test")),
        (("X_train_batch_1", "X_train_batch_2", "X_test_batch"), ("train", "train", "test")),
        (("2019_train", "2019_test"), ("train", "test")),
        (("batch_1", "batch_2", "test_batch"), ("train", "train", "test")),
        (("cat_1", "cat_2", "dog_test"), (None, None, None)),
        (("street", "train station", "test_field"), (None, None, None)),
        (("day_train", "night_train"), (None, None)),
        (("test_2_b", "street_2"), (None, None)),
    ],
)
def test_splits_beside_each_other(names: tuple[str, ...], splits: tuple[str | None, ...]) -> None:
    assert splits_among(names) == dict(zip(names, splits, strict=True))


@pytest.mark.parametrize(
    ("names", "half"),
    [
        (("birds_train", "birds_holdout"), ("birds_train", "birds_holdout")),
        (("street", "train station", "test_field"), None),
        (("day_train", "night_train"), None),
        (("test_2_b", "street_2"), None),
        (("art_painting", "cartoon", "photo", "sketch"), None),
    ],
)
def test_a_split_without_its_partner(names: tuple[str, ...], half: tuple[str, str] | None) -> None:
    assert not any(splits_among(names).values())
    assert without_partner(names) == half


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("test", "trainval", "val"), "trainval is named like train and val in one, and val beside it"),
        (("pets_test", "pets_train", "PetsTrainVal"), "PetsTrainVal is named .* and pets_train beside it"),
        (
            ("train", "eval", "test"),
            "eval stands beside test, and may be for validation or for tests; call it",
        ),
        (("train", "val", "evaluation_set"), None),
        (("trainval", "test"), None),
        (("trainval_1", "trainval_2", "eval"), None),
        (("medieval_train", "medieval_test", "test"), None),
    ],
)
def test_splits_whose_images_may_be_those_of_others(names: tuple[str, ...], words: str | None) -> None:
    splits = splits_among(names)
    if words is None:
        refuse_overlaps(splits)
        return
    with pytest.raises(UserError, match=words):
        refuse_overlaps(splits)
