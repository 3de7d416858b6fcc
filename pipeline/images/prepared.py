"""The prepared images: an Arrow table, and a manifest that says what is in it."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Pillow

from pipeline.images.levels import Levels
from pipeline.images.splits import Item
from pipeline.runtime.paths import PREPARED as FOLDER
from stochca.errors import UserError, one_line

TABLE = "images.arrow"
MANIFEST = "manifest.json"
SPLITS = ("train", "val", "test", "unused", "repeated")  # repeated: the same picture as another
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
    """Write `rows` as they come; the columns' description for `datasets` travels in the Arrow schema.

    Always the same bytes in one file, unlike `Dataset.from_generator`, which spreads large tables over
    several files in a cache of its own.
    """
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


class PreparedImages:
    """Some of the prepared images, decoded when asked for; picklable, memory-mapped.

    What an image is looked up by are arrays: processes that load images share their pages, while reading a
    list of Python's numbers would copy them into each.
    """

    def __init__(self, table: Dataset, rows: Sequence[int] | np.ndarray) -> None:
        self._table = table
        self._rows = np.asarray(rows, dtype=np.int64)
        self.labels: np.ndarray = table.data.column("label").to_numpy()[self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Pillow.Image, int]:
        """The image (RGB) and its label; raises `UserError` where the table is damaged there."""
        try:
            image = self._table[int(self._rows[index])]["image"].convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises on damaged files
            raise UserError(
                f"the prepared images are damaged: {self.ids[index]} can't be decoded ({error}); "
                "run: dvc repro prepare --force"
            ) from None
        return image, int(self.labels[index])

    @property
    def known_labels(self) -> np.ndarray:
        """What the training loop asks for, so that it decodes nothing to know them."""
        return self.labels

    @cached_property
    def ids(self) -> list[str]:
        return self._values("id")

    @cached_property
    def domains(self) -> list[str]:
        values = _names(self._table, "domain")
        return [values[row] for row in self._rows]

    @cached_property
    def groups(self) -> list[str]:
        """Images of one group, such as a patient's, or of the same pixels."""
        return self._values("group")

    def _values(self, column: str) -> list[str]:
        values = self._table.data.column(column).to_pylist()
        return [values[row] for row in self._rows]

    def encoded(self) -> Iterator[bytes]:
        """The images' files as they are stored, in order."""
        column = self._table.data.column("image")
        for row in self._rows:
            yield column[int(row)]["bytes"].as_py()


@dataclass(frozen=True)
class Prepared:
    """A prepared dataset: its manifest, and its images by split and domain."""

    manifest: dict[str, Any]
    table: Dataset

    @property
    def classes(self) -> list[str]:
        return self.manifest["classes"]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over every image's id, label, domain, split and content, and over what draws among them."""
        return self.manifest["fingerprint"]

    @property
    def levels(self) -> Levels | None:
        """What grey values of more than 8 bits were made pictures by; None: there were none."""
        return self.manifest.get("levels")

    @property
    def grouped(self) -> bool:
        """Whether groups are of any size, and may hold images of several classes."""
        return self.manifest.get("grouped", False)

    def images(self, split: str) -> PreparedImages:
        """The images of a split, one of SPLITS."""
        return self.select([row for row, name in enumerate(self.splits) if name == split])

    def select(self, rows: Sequence[int]) -> PreparedImages:
        """The images of these rows of the table."""
        return PreparedImages(self.table, rows)

    def items(self, rows: Sequence[int]) -> list[Item]:
        """What a draw of splits needs to know of these rows."""
        groups = self.table.data.column("group").to_pylist()
        return [Item(self.labels[row], self.domains[row], groups[row]) for row in rows]

    @cached_property
    def splits(self) -> list[str]:
        """Of every row of the table, as are the next two."""
        return _names(self.table, "split")

    @cached_property
    def domains(self) -> list[str]:
        return _names(self.table, "domain")

    @cached_property
    def labels(self) -> list[int]:
        return self.table.data.column("label").to_pylist()


def load_prepared(folder: Path = FOLDER) -> Prepared:
    """Open a folder written by `prepare`; the images stay on disk until they are asked for.

    Raises:
        UserError: the folder is missing or damaged.
    """
    for path in (folder / MANIFEST, folder / TABLE):
        if not path.exists():
            raise UserError(f"{path} is missing; run: dvc repro prepare")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        table = Dataset.from_file(str(folder / TABLE))
        expected = sum(manifest["totals"].values())
        complete = len(table) == expected and table.features["label"].names == manifest["classes"]
        complete = complete and "group" in table.column_names
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = one_line(error)
        raise UserError(f"{folder} is damaged ({reason}); run: dvc repro prepare --force") from None
    if not complete:
        raise UserError(
            f"{folder} is damaged ({TABLE} does not hold the {expected:,} images and the classes that "
            f"{MANIFEST} lists); run: dvc repro prepare --force"
        )
    return Prepared(manifest, table)


def _names(table: Dataset, column: str) -> list[str]:
    """A whole column of a few different texts, each of which is in memory once."""
    encoded = table.data.column(column).dictionary_encode()  # before joining: the texts may be gigabytes
    joined = encoded.combine_chunks()
    names = joined.dictionary.to_pylist()
    return [names[index] for index in joined.indices.to_numpy()]
