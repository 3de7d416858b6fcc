import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from PIL import Image

from pipeline.datasets.preparing.ingest import ingest
from pipeline.datasets.source import Record, Source
from pipeline.images.decoding import Decoded
from pipeline.images.prepared import TableRow, write_table

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
