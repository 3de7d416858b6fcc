"""Images as NumPy arrays, root/train.npz and root/test.npz or root/ANY.npz, or CIFAR's binary version.

An .npz holds `images` (N x H x W x 3, uint8), `labels` (N, whole numbers) and, if you like, `class_names`.
"""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from pipeline.config.params import Dataset
from pipeline.datasets import cifar_binary
from pipeline.datasets.image_folder import SPLITS
from pipeline.datasets.source import Record, Source, select_domains
from pipeline.images.decoding import Decoded, from_image
from pipeline.images.sizes import Sides
from stochca.errors import UserError

DOMAIN = "all"
EXPECTED = "expected are root/train.npz and root/test.npz, root/*.npz, or CIFAR's binary version"
PICKLED = ("cifar-10-python.tar.gz", "cifar-10-batches-py", "cifar-100-python.tar.gz", "cifar-100-python")
PICKLED_FILES = ("batches.meta", "data_batch_1", "meta")  # in such a folder


@dataclass(frozen=True)
class ArrayFile:
    """One .npz, without its pixels."""

    path: Path
    split: str | None
    shape: tuple[int, int, int, int]  # of the images: N x H x W x 3
    labels: np.ndarray
    class_names: list[str] | None


def load(dataset: Dataset, sides: Sides) -> Source:
    """The arrays in `dataset.root`, image by image, so that no more than a few are in memory.

    Raises:
        UserError: there are none, they are of another shape or type, or they are pickles.
    """
    root = Path(dataset.root).expanduser()
    version = cifar_binary.version_in(root)
    if version is not None:
        return cifar_binary.load(dataset, sides, version)
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
    files = [_look_into(path, SPLITS.get(path.stem.lower())) for path in paths]
    names = _class_names(root, files)
    count = sum(file.shape[0] for file in files)
    return Source(
        layout="arrays",
        summary=f"dataset.root {root}: {len(names)} classes, {count:,} images in "
        f"{', '.join(path.name for path in paths)}",
        classes=list(names.values()),
        domains=select_domains(dataset.domains, [DOMAIN]),
        records=partial(_records, files, names, sides.stored),
        count=count,
        stored_side=sides.stored,
        root=dataset.root,
    )


def _refuse_pickles(root: Path) -> None:
    for name in (*PICKLED, *PICKLED_FILES):
        if (root / name).exists():
            raise UserError(
                f"dataset.root {root} holds CIFAR's Python version ({name}), pickles that may run any code "
                f"when they are read; download the binary version from {cifar_binary.URL} instead"
            )


def _look_into(path: Path, split: str | None) -> ArrayFile:
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
    return ArrayFile(path, split, shape, labels, names)


def _header(member: IO[bytes]) -> tuple[Any, bool, np.dtype]:
    """Of an array in NumPy's format, of which its pixels follow."""
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(member)


def _class_names(root: Path, files: Sequence[ArrayFile]) -> dict[int, str]:
    """By label: the given names, or the labels themselves."""
    named = [file for file in files if file.class_names is not None]
    labels = sorted({int(label) for file in files for label in np.unique(file.labels)})
    if not named:
        return {label: str(label) for label in labels}
    names = named[0].class_names or []
    for file in named[1:]:
        if file.class_names != names:
            raise UserError(f"{named[0].path} and {file.path} have different class_names; make them the same")
    if len(set(names)) < len(names) or not (labels[0] >= 0 and labels[-1] < len(names)):
        raise UserError(
            f"{named[0].path}: class_names must be {labels[-1] + 1} different names, as many as the labels "
            f"in dataset.root {root} from {labels[0]} to {labels[-1]} need, found {len(set(names))}"
        )
    return dict(enumerate(names))


def _records(files: Sequence[ArrayFile], names: dict[int, str], short_side: int) -> Iterator[Record]:
    for file in files:
        _, height, width, _ = file.shape
        for index, (label, pixels) in enumerate(zip(file.labels, _pixels(file), strict=True)):
            identity = f"{file.path.stem}/{index:06}"
            yield Record(
                id=identity,
                class_name=names[int(label)],
                domain=DOMAIN,
                group=identity,
                read=partial(bytes, pixels),
                decode=partial(_decode, height=height, width=width, short_side=short_side),
                split=file.split,
            )


def _pixels(file: ArrayFile) -> Iterator[bytes]:
    """Of one image after the other, as many as there are."""
    number, height, width, channels = file.shape
    try:
        with zipfile.ZipFile(file.path) as archive, archive.open("images.npy") as member:
            _header(member)
            for _ in range(number):
                pixels = member.read(height * width * channels)
                if len(pixels) < height * width * channels:
                    raise EOFError("it ends early")
                yield pixels
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{file.path} is damaged: {' '.join(str(error).split())}; make it again") from None


def _decode(pixels: bytes, height: int, width: int, short_side: int) -> Decoded:
    array = np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
    return from_image(Image.fromarray(array), short_side=short_side, lossless=True)
