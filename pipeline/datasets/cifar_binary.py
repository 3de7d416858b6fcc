"""CIFAR-10 and CIFAR-100 in their binary version, which anything may read, unlike their pickles."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.config.params import Dataset
from pipeline.datasets.archives import find
from pipeline.datasets.official import read_lines
from pipeline.datasets.source import Record, Source, select_domains
from pipeline.images.decoding import Decoded, from_image
from pipeline.images.sizes import Sides
from stochca.errors import UserError

URL = "https://www.cs.toronto.edu/~kriz/cifar.html"
SIDE = 32  # pixels
PIXELS = 3 * SIDE * SIDE  # bytes: all red ones, then green, then blue
DOMAIN = "all"


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
        f"the binary version of {version.name} from {URL}",
        folder=version.folder,
        archives=[version.archive],
        marker=version.class_list,
    )
    classes = read_lines(folder / version.class_list)
    for split, names in version.files.items():
        expected = version.images[split] * (version.labels + PIXELS)
        for path in (folder / name for name in names):
            found = path.stat().st_size if path.is_file() else 0
            if found != expected:
                raise UserError(
                    f"{path} has {found:,} bytes instead of {expected:,}; download the binary version of "
                    f"{version.name} from {URL} again"
                )
    count = sum(len(names) * version.images[split] for split, names in version.files.items())
    return Source(
        layout=version.name,
        summary=f"{version.name}: {len(classes)} classes, {count:,} images",
        classes=classes,
        domains=select_domains(dataset.domains, [DOMAIN]),
        records=partial(_records, folder, version, classes, sides.stored),
        count=count,
        stored_side=sides.stored,
        root=dataset.root,
        license="not stated by its authors",
        attribution="Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009. "
        f"Source: {URL}.",
    )


def _records(folder: Path, version: Version, classes: Sequence[str], short_side: int) -> Iterator[Record]:
    for split, names in version.files.items():
        for name in names:
            with (folder / name).open("rb") as file:
                for index in range(version.images[split]):
                    content = file.read(version.labels + PIXELS)
                    label, pixels = content[version.labels - 1], content[version.labels :]
                    if label >= len(classes):
                        raise UserError(
                            f"{folder / name} has the class {label} of {len(classes)}; download the binary "
                            f"version of {version.name} from {URL} again"
                        )
                    identity = f"{name}/{index:05}"
                    yield Record(
                        id=identity,
                        class_name=classes[label],
                        domain=DOMAIN,
                        group=identity,
                        read=partial(bytes, pixels),
                        decode=partial(_decode, short_side=short_side),
                        split=split,
                    )


def _decode(pixels: bytes, short_side: int) -> Decoded:
    planes = np.frombuffer(pixels, np.uint8).reshape(3, SIDE, SIDE)
    image = Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))
    return from_image(image, short_side=short_side, lossless=True)
