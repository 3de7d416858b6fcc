"""Writes the Arrow table of prepared images, a batch at a time and always the same bytes.

Not `Dataset.from_generator`, which spreads large tables over several files in a cache of its own.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from datasets import ClassLabel, Features, Image, Value

BATCH = 100  # rows per batch on disk


class TableRow(NamedTuple):
    """One image, in the order of the table's columns."""

    image: bytes
    label: int
    domain: str
    id: str
    split: str
    group: str


def write_table(path: Path, classes: Sequence[str], rows: Iterable[TableRow]) -> None:
    """Write `rows` as they come; the columns' description for `datasets` travels in the Arrow schema."""
    text = Value("string")
    features = Features(
        image=Image(), label=ClassLabel(names=list(classes)), domain=text, id=text, split=text, group=text
    )
    schema, remaining = features.arrow_schema, iter(rows)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        while batch := list(islice(remaining, BATCH)):
            images, *columns = zip(*batch, strict=True)
            encoded = [{"bytes": image, "path": None} for image in images]
            arrays = [pa.array(c, f.type) for c, f in zip([encoded, *columns], schema, strict=True)]
            stream.write_batch(pa.record_batch(arrays, schema=schema))
