"""NumPy's .npz files of images, read without unpickling anything."""

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from pipeline.config.params import Dataset
from pipeline.datasets.arrays.array_file import ArrayFile, array_source
from pipeline.datasets.arrays.cifar import URL
from pipeline.datasets.source import SPLITS, Source
from pipeline.images.sizes import Sides
from stochca.errors import UserError

EXPECTED = "expected are root/train.npz and root/test.npz, root/*.npz, or CIFAR's binary version"
PICKLED = (
    *("cifar-10-python.tar.gz", "cifar-10-batches-py", "cifar-100-python.tar.gz", "cifar-100-python"),
    *("batches.meta", "data_batch_1", "meta"),  # in such a folder
)


def load(dataset: Dataset, sides: Sides) -> Source:
    """The source of all .npz files in `dataset.root`.

    Raises:
        UserError: there are none, they are of another shape or type, or they are pickles.
    """
    root = Path(dataset.root).expanduser()
    paths = sorted(root.glob("*.npz"))
    if not paths:
        _refuse_pickles(root)
        raise UserError(f"dataset.root {root} holds no arrays; {EXPECTED}")
    given = [path for path in paths if path.stem.lower() in SPLITS]
    if given and len(given) < len(paths):
        other = next(path for path in paths if path not in given)
        raise UserError(
            f"dataset.root {root} is ambiguous: {given[0].name} is named like a split, {other.name} is not; "
            f"{EXPECTED}"
        )
    files, named = zip(*(_look_into(path) for path in paths), strict=True)
    labels = sorted({int(label) for file in files for label in np.unique(file.labels)})
    names = _class_names(root, labels, dict(zip(paths, named, strict=True)))
    count = sum(len(file.labels) for file in files)
    return array_source(
        dataset,
        sides,
        files,
        names,
        layout="arrays",
        summary=f"dataset.root {root}: {len(names)} classes, {count:,} images in "
        f"{', '.join(path.name for path in paths)}",
    )


def _refuse_pickles(root: Path) -> None:
    for name in PICKLED:
        if (root / name).exists():
            raise UserError(
                f"dataset.root {root} holds CIFAR's Python version ({name}), pickles that may run any code "
                f"when they are read; download the binary version from {URL} instead"
            )


def _look_into(path: Path) -> tuple[ArrayFile, list[str] | None]:
    """The file, and the names of its classes if it has them."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("images.npy") as member:
            shape, fortran_order, dtype = _header(member)
        with np.load(path, allow_pickle=False) as arrays:
            labels = arrays["labels"]
            names = [str(name) for name in arrays["class_names"]] if "class_names" in arrays else None
    except KeyError as error:
        raise UserError(f"{path} lacks an array: {error.args[0]}; needed are images and labels") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} can't be read as plain arrays: {' '.join(str(error).split())}") from None
    if len(shape) != 4 or shape[3] != 3 or dtype != np.uint8 or fortran_order or 0 in shape:
        raise UserError(
            f"{path}: images must be N x H x W x 3 of uint8, row by row, found "
            f"{' x '.join(map(str, shape))} of {dtype}{', column by column' if fortran_order else ''}"
        )
    if labels.shape != shape[:1] or labels.dtype.kind not in "iu":
        raise UserError(
            f"{path}: labels must be {shape[0]} whole numbers, one per image, found "
            f"{' x '.join(map(str, labels.shape))} of {labels.dtype}"
        )
    split, pictures = SPLITS.get(path.stem.lower()), partial(_pictures, path, shape)
    return ArrayFile(f"{path.stem}/{{:06}}", split, labels, pictures), names


def _header(member: IO[bytes]) -> tuple[Any, bool, np.dtype]:
    """Of an array in NumPy's format, of which its pixels follow."""
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(member)


def _class_names(root: Path, labels: Sequence[int], given: Mapping[Path, list[str] | None]) -> dict[int, str]:
    """By label: the names that the files give, or the labels themselves."""
    named = [(path, names) for path, names in given.items() if names is not None]
    if not named:
        return {label: str(label) for label in labels}
    first, names = named[0]
    for path, others in named[1:]:
        if others != names:
            raise UserError(f"{first} and {path} have different class_names; make them the same")
    if len(set(names)) < len(names) or not (labels[0] >= 0 and labels[-1] < len(names)):
        raise UserError(
            f"{first}: class_names must be {labels[-1] + 1} different names, as many as the labels "
            f"in dataset.root {root} from {labels[0]} to {labels[-1]} need, found {len(set(names))}"
        )
    return dict(enumerate(names))


def _pictures(path: Path, shape: tuple[int, int, int, int]) -> Iterator[np.ndarray]:
    """One image after the other, as many as there are."""
    size = math.prod(shape[1:])
    try:
        with zipfile.ZipFile(path) as archive, archive.open("images.npy") as member:
            _header(member)
            for _ in range(shape[0]):
                pixels = member.read(size)
                if len(pixels) < size:
                    raise EOFError("it ends early")
                yield np.frombuffer(pixels, np.uint8).reshape(shape[1:])
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())}; make it again") from None
