"""A dataset of the Hugging Face hub, or a folder of Parquet files: `dataset.source` says which.

The columns are found by what they hold: one of images, one of classes.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.datasets.image_folder import SPLITS
from pipeline.datasets.source import LEFT_OUT, Problem, Record, Sides, Source, select_domains
from pipeline.images import Decoded, UnusableImage, decode
from pipeline.params import Dataset
from stochca.errors import UserError

DOMAIN = "all"
# OWNER/NAME, then :CONFIGURATION where it has several, then @REVISION to pin one
ON_THE_HUB = re.compile(
    r"^(?P<name>[\w.-]+(/[\w.-]+)?)(:(?P<configuration>[\w.-]+))?(@(?P<revision>[\w./-]+))?$"
)


def load(dataset: Dataset, sides: Sides) -> Source:
    """The dataset `dataset.source`: a folder below `dataset.root`, or else one of the hub.

    Images stay in memory-mapped tables, and are decoded one by one.

    Raises:
        UserError: there is no such dataset, it can't be reached, has no column of images or of classes, or no
            split to train on.
    """
    import datasets

    tables = _open(dataset)
    features = next(iter(tables.values())).features
    image = _column(dataset, features, datasets.Image, "images", None)
    label = _column(dataset, features, datasets.ClassLabel, "classes", dataset.label_column)
    classes = list(features[label].names)
    used, problems = _choose_splits(dataset, tables, label)
    used = {
        split: table.select_columns([image, label]).cast_column(image, datasets.Image(decode=False))
        for split, table in used.items()
    }
    count = sum(len(table) for table in used.values())
    picture = partial(decode, short_side=sides.stored, max_megapixels=dataset.max_megapixels)
    return Source(
        layout="huggingface",
        summary=f"{dataset.source}: {len(classes)} classes in the column {label}, {count:,} images in the "
        f"column {image}, splits {', '.join(used)}",
        classes=classes,
        domains=select_domains(dataset.domains, [DOMAIN]),
        records=partial(_records, used, image, label, classes, picture),
        count=count,
        stored_side=sides.stored,
        root=dataset.root,
        problems=problems,
    )


def _open(dataset: Dataset) -> Mapping[str, Any]:
    """The tables by the name of their split."""
    import datasets

    source = str(dataset.source)
    folder = Path(dataset.root).expanduser() / source
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        if folder.is_dir():
            return dict(datasets.load_dataset(str(folder)))
        parts = ON_THE_HUB.match(source)
        if not parts:
            raise UserError(
                f"dataset.source {source!r} is no folder below dataset.root {dataset.root} and no name on "
                "the hub, which look like OWNER/NAME, OWNER/NAME:CONFIGURATION or OWNER/NAME@REVISION"
            )
        return dict(datasets.load_dataset(parts["name"], parts["configuration"], revision=parts["revision"]))
    except UserError:
        raise
    except Exception as error:  # of many libraries beneath
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"dataset.source {source} is no folder below dataset.root {dataset.root} that can be read, and "
            f"can't be had from the Hugging Face hub: {why}"
        ) from None


def _column(
    dataset: Dataset, features: Mapping[str, Any], kind: type, described: str, wanted: str | None
) -> str:
    found = [name for name, feature in features.items() if isinstance(feature, kind)]
    if wanted in found:
        return str(wanted)
    if len(found) == 1 and wanted is None:
        return found[0]
    columns = ", ".join(
        f"{name} ({getattr(feature, '_type', None) or feature})" for name, feature in features.items()
    )
    if wanted is not None:
        raise UserError(
            f"dataset.label_column {wanted} is no column of classes of {dataset.source}, which has {columns}"
        )
    several = f"{len(found)} columns of {described}" if found else f"no column of {described}"
    choose = "; choose with dataset.label_column" if found and described == "classes" else ""
    raise UserError(f"dataset.source {dataset.source} has {several} among {columns}{choose}")


def _choose_splits(
    dataset: Dataset, tables: Mapping[str, Any], label: str
) -> tuple[dict[str, Any], list[Problem]]:
    """Our splits, each once, as far as their images have classes."""
    used: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, table in tables.items():
        split = SPLITS.get(name.lower())
        if split is None or split in used:
            problems.append(
                {"file": name, "problem": "is no split of train, val and test", "action": LEFT_OUT}
            )
        elif not any(value is not None and value >= 0 for value in table[label]):
            problems.append({"file": name, "problem": "its images have no classes", "action": LEFT_OUT})
        else:
            used[split] = table
    if "train" not in used:
        raise UserError(
            f"dataset.source {dataset.source} has the splits {', '.join(tables)}, none of which is called "
            "train and has classes"
        )
    return used, problems


def _records(
    tables: Mapping[str, Any],
    image: str,
    label: str,
    classes: list[str],
    picture: Callable[[bytes], Decoded],
) -> Iterator[Record]:
    for split, table in tables.items():
        for index, row in enumerate(table):
            identity = f"{split}/{index:06}"
            known = row[label] is not None and row[label] >= 0
            yield Record(
                id=identity,
                class_name=classes[row[label]] if known else "",
                domain=DOMAIN,
                group=identity,
                read=partial(_read, row[image] if known else None, known),
                decode=picture,
                split=split,
            )


def _read(image: Mapping[str, Any] | None, known: bool) -> bytes:
    if not known:
        raise UnusableImage("has no class")
    if image is None:
        raise UnusableImage("is missing")
    content: bytes | None = image["bytes"]
    return content if content is not None else Path(image["path"]).read_bytes()
