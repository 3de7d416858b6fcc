"""A folder of prepared images, as the stage `prepare` leaves it, from images that a test makes up."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.images.prepared import SPLITS, Prepared, TableRow, load_prepared, write_table
from pipeline.runtime.files import write_json


class Row(NamedTuple):
    """One image; what is in `encoded` need not be one."""

    encoded: bytes
    label: int
    id: str
    split: str
    domain: str = "all"
    group: str | None = None  # None: the id


def write_prepared_folder(
    folder: Path, classes: Sequence[str], rows: Sequence[Row], **manifest: Any
) -> Prepared:
    """The table and the manifest, with what is always read of it and what `manifest` says."""
    folder.mkdir(parents=True)
    write_table(
        folder / "images.arrow",
        classes,
        [TableRow(r.encoded, r.label, r.domain, r.id, r.split, r.group or r.id) for r in rows],
    )
    splits = [row.split for row in rows]
    always = {
        "dataset": "shapes",
        "classes": list(classes),
        "domains": list(dict.fromkeys(row.domain for row in rows)),
        "totals": {split: splits.count(split) for split in SPLITS},
        "fingerprint": "5e" * 32,
        "train_fraction": 1.0,
        "train_fraction_of": ["train", "val"],
    }
    write_json(folder / "manifest.json", {**always, **manifest})
    return load_prepared(folder)
