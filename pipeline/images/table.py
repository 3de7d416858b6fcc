"""Writes the Arrow table of prepared images, a batch at a time and always the same bytes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from datasets import ClassLabel, Features, Image, Value

BATCH = 100  # rows per batch on disk


class TableWriter:
    """Collects rows of (image, label, domain, id) and writes them in batches. Made by `open_table`."""

    def __init__(self, writer: pa.RecordBatchStreamWriter, schema: pa.Schema) -> None:
        self._writer = writer
        self._schema = schema
        self._rows: list[tuple[dict[str, bytes | None], int, str, str]] = []

    def add(self, encoded: bytes, label: int, domain: str, id: str) -> None:
        self._rows.append(({"bytes": encoded, "path": None}, label, domain, id))
        if len(self._rows) == BATCH:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [pa.array(c, field.type) for c, field in zip(columns, self._schema, strict=True)]
            self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
            self._rows = []


@contextmanager
def open_table(path: Path, classes: Sequence[str]) -> Iterator[TableWriter]:
    """A table of images whose splits are not known yet."""
    schema = _features(classes).arrow_schema
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        writer = TableWriter(stream, schema)
        yield writer
        writer.flush()


def add_splits(
    path: Path, target: Path, classes: Sequence[str], splits: Sequence[str], groups: Sequence[str]
) -> None:
    """Copy the table at `path` to `target` with the columns ``split`` and ``group``, a value per row."""
    schema = _features(classes, split=Value("string"), group=Value("string")).arrow_schema
    start = 0
    with (
        pa.memory_map(str(path)) as source,
        pa.ipc.open_stream(source) as batches,
        pa.OSFile(str(target), "wb") as file,
        pa.ipc.new_stream(file, schema) as stream,
    ):
        for batch in batches:
            end = start + len(batch)
            columns = [pa.array(values[start:end], pa.string()) for values in (splits, groups)]
            stream.write_batch(pa.record_batch([*batch.columns, *columns], schema=schema))
            start = end


def _features(classes: Sequence[str], **more: Value) -> Features:
    """The columns as `datasets` knows them; their description travels in the Arrow schema."""
    return Features(
        image=Image(),
        label=ClassLabel(names=list(classes)),
        domain=Value("string"),
        id=Value("string"),
        **more,
    )
