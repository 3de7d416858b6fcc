import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from pipeline.datasets import flowers_102
from pipeline.datasets.source import Source
from stochca.errors import UserError
from tests.pipeline.datasets.miniatures import (
    SIDES,
    check_pictures,
    found,
    miniature,
    pack,
    params,
    photograph,
    refused,
)

FACTS = miniature(flowers_102.FACTS, classes=3, train=3, val=2, test=3)
LABELS = [2, 2, 1, 3, 1, 3, 1, 2]  # of image 1, 2, ...
SETS = {"train": [8, 3, 4], "val": [1, 5], "test": [2, 6, 7]}
EXPECTED = {
    f"jpg/image_{number:05}.jpg": (f"class_{LABELS[number - 1]:03}", split)
    for split, numbers in SETS.items()
    for number in numbers
}


def write_sets(root: Path, sets: dict[str, list[int]]) -> None:
    names = {"train": "trnid", "val": "valid", "test": "tstid"}
    savemat(
        root / "setid.mat",
        {names[split]: np.array([numbers], dtype=np.uint16) for split, numbers in sets.items()},
    )


def write(root: Path) -> Path:
    root.mkdir()
    savemat(root / "imagelabels.mat", {"labels": np.array([LABELS], dtype=np.uint8)})
    write_sets(root, SETS)
    for number in range(1, len(LABELS) + 1):
        photograph(root / "jpg" / f"image_{number:05}.jpg", number)
    return root


def load(root: Path) -> Source:
    return flowers_102.load(params("flowers_102", root), SIDES, FACTS)


@pytest.mark.parametrize("packed", [False, True])
def test_classes_and_splits_are_the_official_ones(tmp_path: Path, packed: bool) -> None:
    root = write(tmp_path / "raw")
    if packed:
        pack(root / "102flowers.tgz", root, "jpg")
        shutil.rmtree(root / "jpg")
    source = load(root)
    assert source.classes == ["class_001", "class_002", "class_003"]
    assert found(source) == EXPECTED
    check_pictures(source, {path: int(path[-9:-4]) for path in EXPECTED})


def test_partial_downloads_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "raw")
    with pytest.raises(UserError) as error:
        flowers_102.load(params("flowers_102", root), SIDES)
    refused(error, "102 classes and 1,020 train + 1,020 val + 6,149 test", "3 train + 2 val + 3 test")
    (root / "jpg" / "image_00005.jpg").unlink()
    with pytest.raises(UserError) as error:
        load(root)
    refused(error, "1 of the 8 images", "image_00005.jpg", "vgg/data/flowers")
    write_sets(root, {**SETS, "test": [2, 6, 9]})
    with pytest.raises(UserError) as error:
        load(root)
    refused(error, "names image 9 of 8")
    (root / "setid.mat").unlink()
    with pytest.raises(UserError) as error:
        load(root)
    refused(error, "setid.mat is missing")
