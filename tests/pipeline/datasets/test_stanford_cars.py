import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from pipeline.datasets import stanford_cars
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

FACTS = miniature(stanford_cars.FACTS, classes=3, train=4, test=3)
CLASSES = ["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012", "smart fortwo Convertible 2012"]
LABELS = {"train": [3, 1, 2, 1], "test": [2, 3, 1]}
EXPECTED = {
    f"cars_{split}/{place:05}.jpg": (CLASSES[label - 1], split)
    for split, labels in LABELS.items()
    for place, label in enumerate(labels, start=1)
}


def annotations(path: Path, labels: list[int], with_labels: bool = True) -> None:
    """The struct array of the devkit: 1 x N, every field a 1 x 1 number or a text."""
    fields = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", *(["class"] if with_labels else []), "fname"]
    table = np.empty((1, len(labels)), dtype=[(field, object) for field in fields])
    for place, label in enumerate(labels):
        for field in fields[:4]:
            table[field][0, place] = np.array([[place + 1]], dtype=np.uint16)
        if with_labels:
            table["class"][0, place] = np.array([[label]], dtype=np.uint8)
        table["fname"][0, place] = f"{place + 1:05}.jpg"
    savemat(path, {"annotations": table})


def write(root: Path) -> Path:
    (root / "devkit").mkdir(parents=True)
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": matlab_cells(*CLASSES).T})
    annotations(root / "devkit" / "cars_train_annos.mat", LABELS["train"])
    annotations(root / "devkit" / "cars_test_annos.mat", LABELS["test"], with_labels=False)
    annotations(root / "cars_test_annos_withlabels.mat", LABELS["test"])
    for number, path in enumerate(EXPECTED):
        photograph(root / path, number)
    return root


def load(root: Path) -> Source:
    return stanford_cars.load(params("stanford_cars", root), SIDES, FACTS)


@pytest.mark.parametrize("packed", [(), ("cars_train",), ("cars_train", "cars_test", "devkit")])
def test_classes_and_splits_are_the_official_ones(tmp_path: Path, packed: tuple[str, ...]) -> None:
    root = write(tmp_path / "raw")
    for name in packed:
        pack(root / f"{'car_devkit' if name == 'devkit' else name}.tgz", root, name)
        shutil.rmtree(root / name)
    source = load(root)
    assert source.classes == CLASSES
    assert found(source) == EXPECTED
    check_pictures(source, {path: number for number, path in enumerate(EXPECTED)})


def test_labels_of_the_test_images_may_lie_in_the_devkit(tmp_path: Path) -> None:
    root = write(tmp_path / "raw")
    (root / "cars_test_annos_withlabels.mat").rename(root / "devkit" / "cars_test_annos_withlabels.mat")
    assert found(load(root)) == EXPECTED


def test_partial_downloads_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "raw")
    with pytest.raises(UserError) as error:
        stanford_cars.load(params("stanford_cars", root), SIDES)
    refused(error, "196 classes and 8,144 train + 8,041 test", "3 classes and 4 train + 3 test")
    (root / "cars_test" / "00002.jpg").unlink()
    with pytest.raises(UserError) as error:
        load(root)
    refused(error, "1 of the 7 images", "cars_test/00002.jpg")
    shutil.rmtree(root / "cars_test")
    with pytest.raises(UserError) as error:
        load(root)
    refused(error, "neither the folder cars_test nor the archive cars_test.tgz", "jkrause/cars")
    (root / "cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(UserError) as error:
        load(root)
    refused(error, "lacks cars_test_annos_withlabels.mat, which is no part of the archives")


def test_annotations_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "raw")
    path = root / "devkit" / "cars_train_annos.mat"
    whole = path.read_bytes()
    for content in (whole[:-40], b"", b"MATLAB 5.0 MAT-file" + bytes(200)):
        path.write_bytes(content)
        with pytest.raises(UserError) as error:
            load(root)
        refused(error, "cars_train_annos.mat", "again")
    annotations(path, LABELS["train"], with_labels=False)
    with pytest.raises(UserError) as error:
        load(root)
    refused(error, "cars_train_annos.mat does not name the images' classes")
    annotations(path, [3, 1, 4, 1])
    with pytest.raises(UserError) as error:
        load(root)
    refused(error, "cars_train_annos.mat has a class that cars_meta.mat lacks")
