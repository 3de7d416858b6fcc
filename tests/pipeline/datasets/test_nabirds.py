from pathlib import Path

import pytest

from pipeline.datasets import nabirds
from stochca.errors import UserError
from tests.pipeline.datasets.miniatures import (
    SIDES,
    check_pictures,
    found,
    lines,
    miniature,
    pack,
    params,
    photograph,
    refused,
)

FACTS = miniature(nabirds.FACTS, classes=3, train=4, test=2)
# Numbers of classes, as in the archive: of groups of birds, and of birds with images.
CLASSES = {
    0: "Birds",
    1: "Ducks, Geese, and Swans",
    295: "Snow Goose (White morph)",
    817: "Oak Titmouse",
    1009: "Oak Titmouse",  # a name that comes twice
}
IMAGES = {  # key -> number of the class, whether it is for training
    "0000139e-21dc-4d0c-bfe1-4cae3c85c829": (817, True),
    "0000d9fc-4e02-4c06-a0af-a55cfb16b12b": (295, False),
    "00019306-9d83-4334-b255-a447742edce3": (1009, True),
    "0001afd4-99a1-4a67-b940-d419413e23b3": (1009, False),
    "000332b8-997c-4540-9647-2f0a8495aecf": (817, True),
    "000343bd-5215-49ba-ab9c-7c97a70ac1a5": (295, True),
}
NAMES = {
    295: "0295.Snow Goose (White morph)",
    817: "0817.Oak Titmouse",
    1009: "1009.Oak Titmouse",
}


def path_of(key: str) -> str:
    return f"{IMAGES[key][0]:04}/{key.replace('-', '')}.jpg"


def write(folder: Path) -> Path:
    lines(folder / "classes.txt", *[f"{number} {name}" for number, name in CLASSES.items()])
    lines(folder / "hierarchy.txt", "1 0", "295 1", "817 0", "1009 0")
    lines(folder / "images.txt", *[f"{key} {path_of(key)}" for key in IMAGES])
    lines(folder / "image_class_labels.txt", *[f"{key} {number}" for key, (number, _) in IMAGES.items()])
    lines(folder / "train_test_split.txt", *[f"{key} {int(train)}" for key, (_, train) in IMAGES.items()])
    for place, key in enumerate(IMAGES):
        photograph(folder / "images" / path_of(key), place)
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_only_classes_with_images_count_and_have_names_of_their_own(tmp_path: Path, packed: bool) -> None:
    write(tmp_path / "nabirds")
    root = tmp_path
    if packed:
        root = tmp_path / "raw"
        pack(root / "nabirds.tar.gz", tmp_path, "nabirds")
    source = nabirds.load(params("nabirds", root), SIDES, FACTS)
    assert source.classes == list(NAMES.values())
    assert found(source) == {
        path_of(key): (NAMES[number], "train" if train else "test") for key, (number, train) in IMAGES.items()
    }
    check_pictures(source, {path_of(key): place for place, key in enumerate(IMAGES)})


def test_a_partial_download_and_another_version_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "nabirds")
    with pytest.raises(UserError) as error:
        nabirds.load(params("nabirds", root), SIDES)
    refused(error, "555 classes and 23,929 train + 24,633 test", "3 classes and 4 train + 2 test")
    (root / "images" / path_of("000332b8-997c-4540-9647-2f0a8495aecf")).unlink()
    with pytest.raises(UserError) as error:
        nabirds.load(params("nabirds", root), SIDES, FACTS)
    refused(error, "1 of the 6 images", "0817/000332b8997c454096472f0a8495aecf.jpg", "allaboutbirds")
