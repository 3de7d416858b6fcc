import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from pipeline.datasets import stanford_dogs
from pipeline.datasets.source import Source
from stochca.errors import UserError
from tests.pipeline.datasets.miniatures import (
    SIDES,
    check_pictures,
    found,
    matlab_cells,
    miniature,
    pack,
    params,
    photograph,
    refused,
)

FACTS = miniature(stanford_dogs.FACTS, classes=3, train=5, test=3)
BREEDS = ["n02107142-Doberman", "n02116738-African_hunting_dog", "n02085620-Chihuahua"]  # labels 1, 2, 3
LISTS = {
    "train": [(0, 10074), (0, 10131), (1, 3), (2, 7), (2, 8)],
    "test": [(0, 1), (1, 4), (2, 9)],
}


def path_of(breed: int, number: int) -> str:
    return f"{BREEDS[breed]}/{BREEDS[breed].split('-')[0]}_{number}.jpg"


EXPECTED = {
    path_of(breed, number): (BREEDS[breed], split)
    for split, images in LISTS.items()
    for breed, number in images
}


def write_list(path: Path, images: list[tuple[int, int]]) -> None:
    names = [path_of(*image) for image in images]
    savemat(
        path,
        {
            "file_list": matlab_cells(*names),
            "annotation_list": matlab_cells(*[name.removesuffix(".jpg") for name in names]),
            "labels": np.array([[breed + 1] for breed, _ in images], dtype=np.uint8),
        },
    )


def write(root: Path) -> Path:
    """Images/ and, without a folder around them in their archive, the lists."""
    root.mkdir()
    for split, images in LISTS.items():
        write_list(root / f"{split}_list.mat", images)
    for number, path in enumerate(EXPECTED):
        photograph(root / "Images" / path, number)
    return root


def load(root: Path) -> Source:
    return stanford_dogs.load(params("stanford_dogs", root), SIDES, FACTS)


@pytest.mark.parametrize("place", ["flat", "lists", "archives"])
def test_classes_and_splits_are_the_official_ones(tmp_path: Path, place: str) -> None:
    root = write(tmp_path / "raw")
    if place == "lists":
        (root / "lists").mkdir()
        for split in LISTS:
            (root / f"{split}_list.mat").rename(root / "lists" / f"{split}_list.mat")
    if place == "archives":
        pack(root / "lists.tar", root, "train_list.mat", "test_list.mat")
        pack(root / "images.tar", root, "Images")
        shutil.rmtree(root / "Images")
        for split in LISTS:
            (root / f"{split}_list.mat").unlink()
    source = load(root)
    assert source.classes == BREEDS  # by label, not by name
    assert found(source) == EXPECTED
    check_pictures(source, {path: number for number, path in enumerate(EXPECTED)})


def test_partial_downloads_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "raw")
    with pytest.raises(UserError) as error:
        stanford_dogs.load(params("stanford_dogs", root), SIDES)
    refused(error, "120 classes and 12,000 train + 8,580 test", "3 classes and 5 train + 3 test")
    (root / "Images" / path_of(2, 7)).unlink()
    with pytest.raises(UserError) as error:
        load(root)
    refused(error, "1 of the 8 images", path_of(2, 7))
    write_list(root / "test_list.mat", LISTS["test"][:2])
    with pytest.raises(UserError) as error:
        load(root)
    refused(error, "5 train + 3 test", "5 train + 2 test")
    savemat(root / "test_list.mat", {"file_list": matlab_cells("a/1.jpg")})
    with pytest.raises(UserError) as error:
        load(root)
    refused(error, "test_list.mat lacks the variable labels")
    (root / "train_list.mat").unlink()
    with pytest.raises(UserError) as error:
        load(root)
    refused(error, "neither the folder lists nor the archive lists.tar", "ImageNetDogs")
