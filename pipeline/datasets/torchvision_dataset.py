"""Any dataset of torchvision that gives images and one class each: `dataset.source` is its name there.

What torchvision itself keeps as a pickle (CIFAR10) it reads itself, after it checked the file's md5.
"""

import difflib
import inspect
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.datasets import register
from pipeline.config.params import Dataset
from pipeline.datasets.source import LEFT_OUT, Record, Source, select_domains, unusable
from pipeline.images.sizes import Sides
from pipeline.runtime import paths
from stochca.errors import UserError, one_line

if TYPE_CHECKING:
    from PIL import Image

    from pipeline.images.decoding import Decoded

DOWNLOADED = paths.DOWNLOADED / "torchvision"
NO_DATASETS = ("ImageFolder", "DatasetFolder", "FakeData")  # they stand for none in particular
NO_SPLIT = "all"  # begins the ids where a dataset has no splits
# What torchvision calls our splits, the first that a dataset knows.
NAMES = {"train": ("train", "trainval"), "val": ("val", "valid"), "test": ("test",)}
DAMAGED = (OSError, SyntaxError, ValueError)  # what Pillow raises on damaged files

Opened = dict[str, Any]  # a dataset of torchvision per split

register("torchvision", __name__, example="Food101")


def load(dataset: Dataset, sides: Sides) -> Source:
    """The dataset `dataset.source`, from `dataset.root` as torchvision lays it out, or else downloaded.

    Raises:
        UserError: torchvision has no such dataset, it does not classify images, or it can't be had.
    """
    name = str(dataset.source)
    opened = _open(name, Path(dataset.root).expanduser())
    unlabelled = _check_classifies(name, opened)
    for split in unlabelled:
        del opened[split]
    names = _class_names(opened)
    count = sum(len(images) for images in opened.values())
    return Source(
        layout=f"torchvision.{name}",
        summary=f"torchvision's {name}: {len(names)} classes, {count:,} images in {', '.join(opened)}",
        classes=list(names.values()),
        domains=select_domains(dataset.domains),
        records=partial(_records, opened, names, sides.stored),
        count=count,
        stored_side=sides.stored,
        root=dataset.root,
        problems=[
            {"file": split, "problem": "its images have no classes", "action": LEFT_OUT}
            for split in unlabelled
        ],
    )


def _open(name: str, root: Path) -> Opened:
    from torchvision import datasets

    if name in NO_DATASETS:
        raise UserError(
            f"dataset.source {name!r} stands for no dataset of its own; for your own images set "
            "dataset.name: image_folder, and dataset.source: null"
        )
    maker = getattr(datasets, name, None) if name in datasets.__all__ else None
    if maker is None:
        near = difflib.get_close_matches(name, datasets.__all__, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "see torchvision.datasets for the names"
        raise UserError(f"dataset.source {name!r} is no dataset of torchvision; {hint}")
    try:
        return _open_splits(maker, root)
    except (RuntimeError, OSError) as error:
        absent = error
    why = "torchvision does not download it"
    if "download" in inspect.signature(maker).parameters:
        print(f"{name} is not in {root}; torchvision downloads it into {DOWNLOADED}, once", flush=True)
        try:
            DOWNLOADED.mkdir(parents=True, exist_ok=True)
            return _open_splits(maker, DOWNLOADED, download=True)
        except (RuntimeError, OSError, ValueError) as error:
            why = f"can't be downloaded: {one_line(error)}"
    raise UserError(
        f"torchvision's {name} is not in dataset.root {root} ({one_line(absent)}) and {why}; put it there "
        "as torchvision lays it out"
    )


def _open_splits(maker: Any, root: Path, **options: Any) -> Opened:
    """The splits that the dataset's own parameters offer.

    Raises:
        UserError: the dataset needs other parameters than these.
        RuntimeError, OSError: it is not there.
    """
    parameters = inspect.signature(maker).parameters
    try:
        if "train" in parameters:
            return {split: maker(root, train=split == "train", **options) for split in ("train", "test")}
        if "split" not in parameters:
            return {NO_SPLIT: maker(root, **options)}
        found = {split: _open_first(maker, root, names, options) for split, names in NAMES.items()}
    except TypeError as error:
        raise UserError(f"torchvision's {maker.__name__} can't be used here: {one_line(error)}") from None
    opened = {split: images for split, images in found.items() if images is not None}
    if "train" not in opened:
        raise UserError(
            f"torchvision's {maker.__name__} can't be used here: its split has no value for training images"
        )
    return opened


def _open_first(maker: Any, root: Path, names: tuple[str, ...], options: Mapping[str, Any]) -> Any:
    for name in names:
        try:
            return maker(root, split=name, **options)
        except ValueError as error:
            if "argument split" not in str(error):
                raise
    return None


def _check_classifies(name: str, opened: Opened) -> list[str]:
    """The splits whose images have no classes, as those of a competition to test on.

    Raises:
        UserError: the dataset is none of images and a class each.
    """
    from PIL import Image

    unlabelled = []
    for split, images in opened.items():
        match next(_readable(images), None):
            case None:
                raise UserError(f"torchvision's {name} holds no image in {split}; put it into place again")
            case (Image.Image(), Integral()):
                pass
            case (Image.Image(), None) if split != "train":
                unlabelled.append(split)
            case _:
                raise UserError(
                    f"torchvision's {name} does not give an image and its class; choose one that classifies "
                    "images"
                )
    return unlabelled


def _readable(images: Any) -> Iterator[Any]:
    """What a dataset gives for every image that is not damaged."""
    for index in range(len(images)):
        with suppress(*DAMAGED):
            yield images[index]


def _class_names(opened: Opened) -> dict[int, str]:
    """By label; numbers where torchvision has no names, which takes a look at every image."""
    first = next(iter(opened.values()))
    names = getattr(first, "classes", None) or getattr(first, "categories", None)
    if not names:
        labels = {int(label) for images in opened.values() for _, label in _readable(images)}
        return {label: str(label) for label in sorted(labels)}
    texts = [name if isinstance(name, str) else ", ".join(map(str, name)) for name in names]
    counts = Counter(texts)  # ImageNet has two kinds of cranes
    return {label: text if counts[text] == 1 else f"{text} ({label})" for label, text in enumerate(texts)}


def _records(opened: Opened, names: Mapping[int, str], short_side: int) -> Iterator[Record]:
    for split, images in opened.items():
        given = None if split == NO_SPLIT else split
        for index in range(len(images)):
            identity = f"{split}/{index:06}"
            try:
                image, label = images[index]
            except DAMAGED as error:
                yield unusable(identity, f"can't be decoded: {one_line(error)}", given)
                continue
            yield Record(
                id=identity,
                class_name=names[int(label)],
                read=partial(_pixels, image),
                decode=partial(_decode, image=image, short_side=short_side),
                split=given,
            )


def _pixels(image: "Image.Image") -> bytes:
    """Equal for the same picture only."""
    return f"{image.mode} {image.size} ".encode() + image.tobytes()


def _decode(_: bytes, image: "Image.Image", short_side: int) -> "Decoded":
    from pipeline.images.decoding import from_image

    return from_image(image, short_side=short_side, lossless=False)  # mostly it was a JPEG
