"""A dataset of the Hugging Face hub, or a folder of Parquet files: `dataset.source` says which.

The columns are found by what they hold: one of images, one of classes.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.config.datasets import register
from pipeline.config.params import Dataset
from pipeline.datasets.source import LEFT_OUT, Problem, Record, Source, select_domains, unusable
from pipeline.datasets.split_names import SPLITS
from pipeline.images.sizes import Sides
from stochca.errors import UserError

# OWNER/NAME, then :CONFIGURATION where it has several, then @REVISION to pin one
ON_THE_HUB = re.compile(r"^(?P<path>[\w.-]+(/[\w.-]+)?)(:(?P<name>[\w.-]+))?(@(?P<revision>[\w./-]+))?$")

register("huggingface", __name__, example="OWNER/NAME", takes=("label_column",))


def load(dataset: Dataset, sides: Sides) -> Source:
    """The dataset `dataset.source`: a folder in `dataset.root`, or else one of the hub.

    Images stay in memory-mapped tables, and are decoded one by one.

    Raises:
        UserError: there is no such dataset, it can't be reached, has no column of images or of classes, or no
            split to train on.
    """
    import datasets

    tables = _open(dataset)
    features = next(iter(tables.values())).features
    image = _column(dataset, features, datasets.Image, "images")
    label = _column(
        dataset, features, datasets.ClassLabel, "classes", "; choose one with dataset.label_column"
    )
    classes = list(features[label].names)
    used, problems = _choose_splits(dataset, tables, label)
    used = {
        split: table.select_columns([image, label]).cast_column(image, datasets.Image(decode=False))
        for split, table in used.items()
    }
    count = sum(len(table) for table in used.values())
    return Source(
        layout="huggingface",
        summary=f"{dataset.source}: {len(classes)} classes in the column {label}, {count:,} images in the "
        f"column {image}, splits {', '.join(used)}",
        classes=classes,
        domains=select_domains(dataset.domains),
        records=partial(_records, used, image, label, classes),
        count=count,
        stored_side=sides.stored,
        root=dataset.root,
        problems=problems,
    )


def _open(dataset: Dataset) -> dict[str, Any]:
    """The tables by the name of their split."""
    import datasets

    source, root = str(dataset.source), Path(dataset.root).expanduser().resolve()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    folder = (root / source).resolve()
    if folder.is_dir() and folder.is_relative_to(root):
        problem = f"the folder {source} in dataset.root {dataset.root} can't be read"
        named = {"path": str(folder)}
    elif (parts := ON_THE_HUB.match(source)) and not Path(parts["path"]).exists():
        problem = (
            f"dataset.source {source} is no folder in dataset.root {dataset.root}, and can't be had from the "
            "Hugging Face hub"
        )
        named = parts.groupdict()
    else:  # also a folder elsewhere, because DVC would not see that it changed
        raise UserError(
            f"dataset.source {source!r} is no folder in dataset.root {dataset.root} and no name on the hub, "
            "which look like OWNER/NAME, OWNER/NAME:CONFIGURATION or OWNER/NAME@REVISION"
        )
    try:
        return dict(datasets.load_dataset(**named))
    except Exception as error:  # of the many libraries beneath
        raise UserError(f"{problem}: {' '.join(str(error).split()) or type(error).__name__}") from None


def _column(
    dataset: Dataset, features: Mapping[str, Any], kind: type, of_what: str, choice: str | None = None
) -> str:
    """The one column of a kind, or that which `dataset.label_column` names where there is a choice."""
    found = [name for name, feature in features.items() if isinstance(feature, kind)]
    if choice and dataset.label_column is not None:
        if dataset.label_column not in found:
            raise UserError(
                f"dataset.label_column {dataset.label_column} is no column of classes of {dataset.source}, "
                f"which has {_listed(features)}"
            )
        return dataset.label_column
    if len(found) != 1:
        raise UserError(
            f"dataset.source {dataset.source} must have one column of {of_what}, found {len(found)} among "
            f"{_listed(features)}{choice if choice and found else ''}"
        )
    return found[0]


def _listed(features: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} ({getattr(kind, '_type', kind)})" for name, kind in features.items())


def _choose_splits(
    dataset: Dataset, tables: Mapping[str, Any], label: str
) -> tuple[dict[str, Any], list[Problem]]:
    """Our splits, each once, as far as their images have classes."""
    used: dict[str, Any] = {}
    problems: list[Problem] = []
    both = "trainval" in tables and "train" not in tables
    for name, table in tables.items():
        split = SPLITS.get(name.lower())
        if split is None or split in used or (split != name and split in tables):
            problem = "is no split of train, val and test"
        elif both and split == "val":
            problem = "is a part of trainval"
        elif not any(value is not None and value >= 0 for value in table[label]):
            problem = "its images have no classes"
        else:
            used[split] = table
            continue
        problems.append({"file": name, "problem": problem, "action": LEFT_OUT})
    if "train" not in used:
        raise UserError(
            f"dataset.source {dataset.source} has the splits {', '.join(tables)}, none of which is called "
            "train and has classes"
        )
    return used, problems


def _records(tables: Mapping[str, Any], image: str, label: str, classes: list[str]) -> Iterator[Record]:
    for split, table in tables.items():
        for index, row in enumerate(table):
            identity = f"{split}/{index:06}"
            if row[label] is None or row[label] < 0:
                yield unusable(identity, "has no class", split)
            elif row[image] is None:
                yield unusable(identity, "is missing", split)
            else:
                read = partial(_read, row[image])
                yield Record(id=identity, class_name=classes[row[label]], read=read, split=split)


def _read(image: Mapping[str, Any]) -> bytes:
    content: bytes | None = image["bytes"]
    return content if content is not None else Path(image["path"]).read_bytes()
