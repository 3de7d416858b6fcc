"""Stanford Cars: 16,185 photographs of 196 makes, models and years, with the official split."""

from pathlib import Path

from pipeline.config.datasets import Facts, register
from pipeline.config.params import Dataset
from pipeline.datasets.archives import find
from pipeline.datasets.official import Photo, items, official_source, read_matlab
from pipeline.datasets.source import Source
from pipeline.images.sizes import Sides
from stochca.errors import UserError

FACTS = Facts(
    name="Stanford Cars",
    url="https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
    classes=196,
    images={"train": 8_144, "test": 8_041},
    license="not stated by its authors",
    citation="Krause, Stark, Deng, Fei-Fei: 3D Object Representations for Fine-Grained Categorization, "
    "3dRR-13, 2013.",
)
TEST_LABELS = "cars_test_annos_withlabels.mat"

register("stanford_cars", __name__, facts=FACTS)


def load(dataset: Dataset, sides: Sides, facts: Facts = FACTS) -> Source:
    """cars_train.tgz, cars_test.tgz and car_devkit.tgz, or what they hold, and the test images' labels."""
    root = Path(dataset.root).expanduser()
    devkit = find(root, facts.described, folder="devkit", archives=["car_devkit.tgz"], marker="cars_meta.mat")
    labels = next((path for path in (root / TEST_LABELS, devkit / TEST_LABELS) if path.is_file()), None)
    if labels is None:
        raise UserError(
            f"dataset.root {root} lacks {TEST_LABELS}, which is no part of the archives; download "
            f"{facts.described} and put it there"
        )
    [names] = read_matlab(devkit / "cars_meta.mat", "class_names")
    classes = items(names)
    train = find(root, facts.described, folder="cars_train", archives=["cars_train.tgz"])
    test = find(root, facts.described, folder="cars_test", archives=["cars_test.tgz"])
    photos = [
        *_photos(train, "train", devkit / "cars_train_annos.mat", classes),
        *_photos(test, "test", labels, classes),
    ]
    return official_source(dataset, sides, facts, photos, classes)


def _photos(folder: Path, split: str, annotations: Path, classes: list[str]) -> list[Photo]:
    [table] = read_matlab(annotations, "annotations")
    if not {"fname", "class"} <= set(table.dtype.names or ()):
        raise UserError(f"{annotations} does not name the images' classes; download the dataset again")
    names, labels = items(table["fname"]), [int(label) for label in items(table["class"])]
    if not all(1 <= label <= len(classes) for label in labels):
        raise UserError(f"{annotations} has a class that cars_meta.mat lacks; download the dataset again")
    return [
        Photo(f"cars_{split}/{name}", folder / name, classes[label - 1], split)
        for name, label in zip(names, labels, strict=True)
    ]
