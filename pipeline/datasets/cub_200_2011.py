"""CUB-200-2011: 11,788 photographs of 200 species of birds, with the official split."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.config.datasets import Facts, register
from pipeline.config.params import Dataset
from pipeline.datasets.archives import find
from pipeline.datasets.official import Photo, official_source, read_table
from pipeline.datasets.source import Source
from pipeline.images.sizes import Sides
from stochca.errors import UserError

FACTS = Facts(
    name="CUB-200-2011",
    url="https://www.vision.caltech.edu/datasets/cub_200_2011/",
    classes=200,
    images={"train": 5_994, "test": 5_794},
    license="non-commercial research and educational use",
    citation="Wah, Branson, Welinder, Perona, Belongie: The Caltech-UCSD Birds-200-2011 Dataset, 2011.",
)


def birds(
    official: Facts, folder: str, archives: Sequence[str], class_name: Callable[[str, str], str]
) -> Callable[..., Source]:
    """The `load` of a benchmark that is laid out like this one.

    Args:
        class_name: makes a class's number and its name in classes.txt a name that no other class has.
    """

    def load(dataset: Dataset, sides: Sides, facts: Facts = official) -> Source:
        """What is in `dataset.root`, packed or not; a `UserError` where it is not there, or not whole."""
        place = find(
            Path(dataset.root), facts.described, folder=folder, archives=archives, marker="images.txt"
        )
        return official_source(dataset, sides, facts, *_read_lists(place, class_name))

    return load


def _read_lists(folder: Path, class_name: Callable[[str, str], str]) -> tuple[list[Photo], list[str]]:
    """The photographs that the four lists of such a dataset name, and those classes that have any.

    Raises:
        UserError: a list is missing, or lacks an image that another one names.
    """
    names = {key: class_name(key, name) for key, name in read_table(folder / "classes.txt").items()}
    paths = read_table(folder / "images.txt")
    labels = read_table(folder / "image_class_labels.txt")
    in_train = read_table(folder / "train_test_split.txt")
    photos = []
    for key, path in paths.items():
        if labels.get(key) not in names or in_train.get(key) not in ("0", "1"):
            raise UserError(
                f"{folder}: image_class_labels.txt or train_test_split.txt does not tell the class or split "
                f"of the image {key} ({path}) of images.txt; download the dataset again"
            )
        split = "train" if in_train[key] == "1" else "test"
        photos.append(Photo(path, folder / "images" / path, names[labels[key]], split))
    used = {labels[key] for key in paths}
    return photos, [name for key, name in names.items() if key in used]


register("cub_200_2011", __name__, facts=FACTS)
load = birds(FACTS, "CUB_200_2011", ["CUB_200_2011.tgz", "CUB_200_2011.tar.gz"], lambda number, name: name)
