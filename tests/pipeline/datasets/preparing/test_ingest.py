import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.preparing.ingest import ingest
from pipeline.datasets.source import Record, Source, unusable
from pipeline.images.decoding import Decoded
from pipeline.images.prepared import TableRow, write_table
from stochca.errors import UserError

SIDE = 120  # pixels; noise of this size takes about 43 kB as PNG


def noise(_: bytes, seed: int) -> Decoded:
    pixels = np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    return Decoded(Image.fromarray(pixels), lossless=True)


def records(count: int) -> Iterator[Record]:
    for number in range(count):
        yield Record(
            id=f"cat/{number}.png",
            class_name="cat",
            domain="all",
            group=f"cat/{number}.png",
            read=partial(bytes, 40_000 + number),
            decode=partial(noise, seed=number),
        )


def most_memory(count: int, target: Path) -> tuple[int, int]:
    """The most that Python held at once, and the size of the table, in bytes."""
    source = Source("class", "", ["cat"], ["all"], partial(records, count), count, SIDE)
    tracemalloc.start()
    with TemporaryFile(dir=target.parent) as store:
        rows, problems, levels = ingest(source, store, 50)
        store.seek(0)
        table = (
            TableRow(store.read(row.stored_bytes), row.label, row.domain, row.id, "train", row.group)
            for row in rows
        )
        write_table(target, source.classes, table)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(rows), problems, levels) == (count, [], None)
    return most, target.stat().st_size


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    most, size = most_memory(300, tmp_path / "some.arrow")
    most_of_more, size_of_more = most_memory(900, tmp_path / "more.arrow")
    assert size_of_more - size > 20e6
    assert most_of_more - most < (size_of_more - size) / 4


def ingested(changes: dict[str, Any]) -> int:
    """How many of three images are stored, the last of which is read as `changes` say."""
    first, second, third = records(3)
    given = [first, replace(second, split="val"), replace(third, **changes), unusable("torn", "is torn")]
    source = Source("class", "", ["cat", "dog"], ["all"], partial(iter, given), len(given), SIDE)
    with TemporaryFile() as store:
        rows, problems, _ = ingest(source, store, 50)
    assert [problem["file"] for problem in problems] == ["torn"]  # which has no class, and needs none
    return len(rows)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"split": "validation"}, "cat/2.png with the split 'validation', .* none of train, val, test;"),
        ({"class_name": "bird"}, "cat/2.png with the class 'bird', which is none of cat, dog;"),
        ({"domain": "photo"}, "cat/2.png with the domain 'photo', which is none of all;"),
        ({"id": "cat/0.png"}, "lists the image cat/0.png twice;"),
    ],
)
def test_a_record_is_as_its_source_announced(changes: dict[str, Any], sentence: str) -> None:
    assert ingested({"class_name": "dog", "split": "test"}) == 3
    with pytest.raises(UserError, match=sentence):
        ingested(changes)
