"""Where the table of labels of a folder of images is: where params.yaml or Hugging Face's custom says."""

from pathlib import Path
from typing import NamedTuple

from pipeline.config.params import Dataset
from pipeline.datasets.links import leads_out
from pipeline.datasets.source import shown
from pipeline.datasets.split_names import refuse_overlaps, splits_among
from pipeline.datasets.table_files import FORMATS
from stochca.errors import UserError

METADATA = "metadata"  # what Hugging Face calls the table of a folder of images


class Table(NamedTuple):
    path: Path
    split: str | None  # that of the folder in which it lies


def find_tables(dataset: Dataset, root: Path) -> list[Table]:
    """The table that `dataset.labels` names; or metadata.csv in the root, or in its folders of splits.

    Raises:
        UserError: it is not there, or there are several, or columns are named and there is no table.
    """
    if dataset.labels is not None:
        path = within(root / dataset.labels, root)
        if path is None or not path.is_relative_to(root):
            raise UserError(
                f"dataset.labels {dataset.labels} is no file in dataset.root {dataset.root}; put the table "
                "there, where its changes are seen, and give its path from there"
            )
        return [Table(path, None)]
    found = _metadata(root, None) or _metadata_of_splits(dataset, root)
    for key in ("label_column", "group_column"):
        if not found and getattr(dataset, key) is not None:
            raise UserError(
                f"dataset.{key} names a column, but dataset.root {dataset.root} holds no {METADATA}.csv; "
                f"name the table in dataset.labels (stochca new: --labels), or remove dataset.{key}"
            )
    return found


def _metadata_of_splits(dataset: Dataset, root: Path) -> list[Table]:
    """That of every folder of a split, or of none."""
    folders = splits_among(entry.name for entry in shown(root) if entry.is_dir())
    tables = {name: _metadata(root / name, split) for name, split in folders.items() if split}
    without = [name for name, found in tables.items() if not found]
    if without and any(tables.values()):
        other = next(name for name, found in tables.items() if found)
        raise UserError(
            f"dataset.root {dataset.root}: the folder {without[0]} is named like a split and holds no "
            f"{METADATA}.csv, as {other} does; put its table there, or take the folder away, and its images "
            "are drawn from the others"
        )
    refuse_overlaps({name: folders[name] for name in tables})
    return [table for found in tables.values() for table in found]


def _metadata(folder: Path, split: str | None) -> list[Table]:
    files = [file for kind in FORMATS if (file := folder / f"{METADATA}{kind}").is_file()]
    if len(files) > 1:
        raise UserError(
            f"{folder} holds {' and '.join(file.name for file in files)}, which may say different things; "
            "keep one of them, or name it in dataset.labels"
        )
    return [Table(file, split) for file in files]


def within(path: Path, root: Path) -> Path | None:
    """Where a file lies in the end, or in `root` where its content is in DVC's cache; None: there is none."""
    target = path.resolve()
    if not target.is_file():
        return None
    linked = path.parent.resolve() / path.name
    in_cache = not target.is_relative_to(root) and linked.is_relative_to(root) and not leads_out(linked, root)
    return linked if in_cache else target
