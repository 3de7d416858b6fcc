"""Tables as people have them: CSV, JSON lines or Parquet, one row after the other, every value as text."""

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from stochca.errors import UserError

DELIMITERS = ",;\t"  # of a CSV: that which its first line has most of
INDEXES = ("", "__index_level_0__")  # columns that pandas writes of its own accord

Row = tuple[str, Sequence[Any]]  # where it stands, such as "line 7", and its values


def read_table(path: Path, shown: str) -> tuple[list[str], Iterator[tuple[str, list[str]]]]:
    """The names of the columns, and the rows: where each stands, and its values, of which none is ``""``.

    Args:
        shown: what errors call the file.

    Raises:
        UserError: it can't be read, is no table, or has two columns of one name; of a row that is damaged,
            when its turn comes.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"{shown} is no table that is read here; save it as {', '.join(FORMATS)}")
    rows = _readable(FORMATS[path.suffix.lower()], path, shown)
    _, header = next(rows, ("", ()))
    columns = [_text(name) for name in header]
    twice = next((name for name in columns if name not in INDEXES and columns.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{shown} has two columns that are called {twice!r}; rename one of them")
    return columns, _of_one_width(rows, len(columns), shown)


def _readable(read: Callable[[Path], Iterator[Row]], path: Path, shown: str) -> Iterator[Row]:
    try:
        yield from read(path)
    except OSError as error:
        raise UserError(f"{shown} can't be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{shown} is no text in UTF-8; save it as such") from None
    except (ValueError, csv.Error) as error:
        kind = path.suffix.lower()
        raise UserError(f"{shown} can't be read as {kind}: {' '.join(str(error).split())}") from None


def _of_one_width(rows: Iterator[Row], width: int, shown: str) -> Iterator[tuple[str, list[str]]]:
    for place, values in rows:
        if len(values) != width:
            raise UserError(f"{shown}, {place}, has {len(values)} values for {width} columns; mend it")
        yield place, [_text(value) for value in values]


def _text(value: Any) -> str:
    """Without spaces around it; nothing where there is no value, or one that has parts."""
    if value is None or isinstance(value, dict | list) or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).encode("utf-8", "backslashreplace").decode().strip()  # JSON may hold half characters


def _csv(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        delimiter = max(DELIMITERS, key=file.readline().count)
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        for values in reader:
            if any(values):
                yield f"line {reader.line_num}", values


def _json_lines(path: Path) -> Iterator[Row]:
    objects: list[tuple[str, dict[str, Any]]] = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                objects.append((f"line {number}", _json_object(line, number)))
    columns = list(dict.fromkeys(name for _, values in objects for name in values))
    yield "", columns
    for place, values in objects:
        yield place, [values.get(name) for name in columns]


def _json_object(line: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line, object_pairs_hook=partial(_once_each, number))
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number}: {error.msg}") from None
    if not isinstance(value, dict):
        raise ValueError(f"line {number} must be an object, found {type(value).__name__}")
    return value


def _once_each(number: int, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"line {number} says {twice!r} twice")
    return dict(pairs)


def _parquet(path: Path) -> Iterator[Row]:
    """Without what no label can be, such as images."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            types, schema = pa.types, file.schema_arrow
            flat = [
                field.name
                for field in schema
                if not types.is_nested(field.type)
                and not types.is_binary(field.type)
                and not types.is_large_binary(field.type)
            ]
            yield "", flat
            number = 0
            for batch in file.iter_batches(columns=flat):
                for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    number += 1
                    yield f"row {number}", values
    except pa.ArrowException as error:
        raise ValueError(str(error)) from None


FORMATS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
