"""CIFAR-10 and CIFAR-100 in their binary version, which anything may read, unlike their pickles."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.config.params import Dataset
from pipeline.datasets.archives import find
from pipeline.datasets.arrays.array_file import ArrayFile, array_source
from pipeline.datasets.official import read_lines
from pipeline.datasets.source import Source
from pipeline.images.sizes import Sides
from stochca.errors import UserError

URL = "https://www.cs.toronto.edu/~kriz/cifar.html"
SIDE = 32  # pixels


@dataclass(frozen=True)
class Version:
    """How one of the two is laid out."""

    name: str
    folder: str
    archive: str
    class_list: str
    labels: int  # bytes before an image, of which the last is its class
    files: dict[str, list[str]]  # per split
    images: dict[str, int]  # in each file of a split

    @property
    def described(self) -> str:
        return f"the binary version of {self.name} from {URL}"


VERSIONS = [
    Version(
        name="CIFAR-10",
        folder="cifar-10-batches-bin",
        archive="cifar-10-binary.tar.gz",
        class_list="batches.meta.txt",
        labels=1,
        files={"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]},
        images={"train": 10_000, "test": 10_000},
    ),
    Version(
        name="CIFAR-100",
        folder="cifar-100-binary",
        archive="cifar-100-binary.tar.gz",
        class_list="fine_label_names.txt",
        labels=2,
        files={"train": ["train.bin"], "test": ["test.bin"]},
        images={"train": 50_000, "test": 10_000},
    ),
]


def version_in(root: Path) -> Version | None:
    """Which of the two `root` holds, as an archive or unpacked."""
    for version in VERSIONS:
        if any((root / name).exists() for name in (version.archive, version.folder, version.class_list)):
            return version
    return None


def load(dataset: Dataset, sides: Sides, version: Version) -> Source:
    """The source of one of the two, with its official split.

    Raises:
        UserError: a file is missing or not whole.
    """
    folder = find(
        Path(dataset.root),
        version.described,
        folder=version.folder,
        archives=[version.archive],
        marker=version.class_list,
    )
    classes = read_lines(folder / version.class_list)
    files = [
        _look_into(folder / name, split, version, len(classes))
        for split, names in version.files.items()
        for name in names
    ]
    return array_source(
        dataset,
        sides,
        files,
        dict(enumerate(classes)),
        layout=version.name,
        summary=f"{version.name}: {len(classes)} classes, {sum(len(f.labels) for f in files):,} images",
        license="not stated by its authors",
        attribution="Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009. "
        f"Source: {URL}.",
    )


def _look_into(path: Path, split: str, version: Version, classes: int) -> ArrayFile:
    # An image is its labels, then all red values, green and blue.
    row = np.dtype([("labels", np.uint8, (version.labels,)), ("planes", np.uint8, (3, SIDE, SIDE))])
    expected = version.images[split] * row.itemsize
    found = path.stat().st_size if path.is_file() else 0
    if found != expected:
        raise UserError(
            f"{path} has {found:,} bytes instead of {expected:,}; download {version.described} again"
        )
    images = np.memmap(path, row, mode="r")
    labels = np.array(images["labels"][:, -1])
    if labels.max() >= classes:
        raise UserError(
            f"{path} has the class {labels.max()} of {classes}; download {version.described} again"
        )
    pictures = images["planes"].transpose(0, 2, 3, 1)
    return ArrayFile(f"{path.name}/{{:05}}", split, labels, lambda: map(np.asarray, pictures))
