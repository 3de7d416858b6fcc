"""Images as arrays: root/train.npz and root/test.npz, or root/*.npz; nothing in them is unpickled.

An .npz holds `images` (N x H x W x 3, uint8), `labels` (N, whole numbers) and, if you like, `class_names`.
"""

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pipeline.config.datasets import register
from pipeline.config.params import Dataset
from pipeline.datasets.source import Record, Source, select_domains
from pipeline.datasets.split_names import refuse_overlaps, splits_among, without_partner
from pipeline.images.sizes import Sides
from stochca.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from pipeline.images.decoding import Decoded

EXPECTED = "expected are root/train.npz and root/test.npz, or root/*.npz"

register("arrays", __name__, sources=())


@dataclass(frozen=True)
class ArrayFile:
    """What is known of a file without its pixels."""

    path: Path
    shape: tuple[int, int, int, int]  # of the images
    labels: list[int]
    class_names: list[str] | None
    split: str | None = None


def load(dataset: Dataset, sides: Sides) -> Source:
    """The images of all .npz files in `dataset.root`, of which no more than a few are in memory.

    Raises:
        UserError: there are none, or they are of another shape or type.
    """
    root = Path(dataset.root).expanduser()
    paths = sorted(root.glob("*.npz"))
    if not paths:
        cifar = next((path.name for path in sorted(root.glob("cifar-10*"))), None)
        hint = f"for {cifar} choose dataset.name: torchvision with dataset.source: CIFAR10 or CIFAR100"
        raise UserError(f"dataset.root {root} holds no arrays; {hint if cifar else EXPECTED}")
    splits = splits_among(path.stem for path in paths)
    refuse_overlaps(splits)
    files = [replace(_look_into(path), split=splits[path.stem]) for path in paths]
    given = [file for file in files if file.split]
    half = without_partner([path.stem for path in paths]) if not given else None
    if given and len(given) < len(files):
        half = given[0].path.stem, next(file.path.stem for file in files if not file.split)
    if half:
        raise UserError(
            f"dataset.root {root} is ambiguous: {half[0]}.npz is named like a split, {half[1]}.npz is not; "
            f"{EXPECTED}"
        )
    names = _class_names(root, files)
    count = sum(len(file.labels) for file in files)
    return Source(
        layout="arrays",
        summary=f"dataset.root {root}: {len(names)} classes, {count:,} images in "
        + ", ".join(f"{file.path.name} ({file.split})" if file.split else file.path.name for file in files),
        classes=list(names.values()),
        domains=select_domains(dataset.domains),
        records=partial(_records, files, names, sides.stored),
        count=count,
        stored_side=sides.stored,
        root=dataset.root,
    )


def _look_into(path: Path) -> ArrayFile:
    import numpy as np

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
    return ArrayFile(path, shape, labels.tolist(), names)


def _header(member: IO[bytes]) -> tuple[Any, bool, "np.dtype"]:
    """Of an array in NumPy's format, of which its pixels follow."""
    from numpy.lib import format

    version = format.read_magic(member)
    read = format.read_array_header_1_0 if version == (1, 0) else format.read_array_header_2_0
    return read(member)


def _class_names(root: Path, files: Sequence[ArrayFile]) -> dict[int, str]:
    """By label: the names that the files give, or the labels themselves."""
    labels = sorted({label for file in files for label in file.labels})
    named = [file for file in files if file.class_names is not None]
    if not named:
        return {label: str(label) for label in labels}
    first, names = named[0].path, named[0].class_names or []
    for file in named[1:]:
        if file.class_names != names:
            raise UserError(f"{first} and {file.path} have different class_names; make them the same")
    if len(set(names)) < len(names) or not (labels[0] >= 0 and labels[-1] < len(names)):
        raise UserError(
            f"{first}: class_names must be {labels[-1] + 1} different names, as many as the labels "
            f"in dataset.root {root} from {labels[0]} to {labels[-1]} need, found {len(set(names))}"
        )
    return dict(enumerate(names))


def _records(files: Sequence[ArrayFile], names: Mapping[int, str], short_side: int) -> Iterator[Record]:
    for file in files:
        for index, (label, picture) in enumerate(zip(file.labels, _pictures(file), strict=True)):
            yield Record(
                id=f"{file.path.stem}/{index:06}",
                class_name=names[label],
                read=picture.tobytes,
                decode=partial(_decode, picture, short_side),
                split=file.split,
            )


def _pictures(file: ArrayFile) -> "Iterator[np.ndarray]":
    """One image after the other: height x width x 3, uint8."""
    import numpy as np

    size = math.prod(file.shape[1:])
    try:
        with zipfile.ZipFile(file.path) as archive, archive.open("images.npy") as member:
            _header(member)
            for _ in range(file.shape[0]):
                pixels = member.read(size)
                if len(pixels) < size:
                    raise EOFError("it ends early")
                yield np.frombuffer(pixels, np.uint8).reshape(file.shape[1:])
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{file.path} is damaged: {' '.join(str(error).split())}; make it again") from None


def _decode(picture: "np.ndarray", short_side: int, _: bytes) -> "Decoded":
    from PIL import Image

    from pipeline.images.decoding import from_image

    return from_image(Image.fromarray(picture), short_side=short_side, lossless=True)
