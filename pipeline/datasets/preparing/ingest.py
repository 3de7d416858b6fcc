"""Reads every image of a dataset once: decoded, checked, made small and put on disk."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import IO

from pipeline.datasets.source import LEFT_OUT, Problem, Record, Source
from pipeline.images.decoding import UnusableImage, decode, encode
from pipeline.runtime.progress import track

BATCH = 64  # images under way at a time; bounds the memory
THREADS = min(8, os.cpu_count() or 1)  # each may hold a whole decoded image


@dataclass(frozen=True, slots=True)
class Row:
    """What is remembered of a stored image: everything but its pixels."""

    id: str
    label: int
    domain: str
    group: str
    split: str | None  # the dataset's own
    source_hash: bytes  # equal where the sources are the same image
    stored_hash: bytes
    stored_bytes: int  # of the encoded image


Read = tuple[Row, bytes, str | None]  # an image with its file as it is stored, and what is odd about it


def ingest(source: Source, store: IO[bytes], max_megapixels: float) -> tuple[list[Row], list[Problem]]:
    """Write every usable image of `source` to `store`, encoded, one right after the other in its order.

    Returns:
        A row per stored image, and what was wrong or odd about the others and these.
    """
    rows: list[Row] = []
    problems: list[Problem] = []
    for id, result in track(_in_threads(source, max_megapixels), source.count, "reading images"):
        if isinstance(result, str):
            problems.append({"file": id, "problem": result, "action": LEFT_OUT})
            continue
        row, encoded, note = result
        if note:
            problems.append({"file": id, "problem": note, "action": "kept"})
        store.write(encoded)
        rows.append(row)
    return rows, problems


def _in_threads(source: Source, max_megapixels: float) -> Iterator[tuple[str, Read | str]]:
    """In order, a batch at a time; Pillow decodes outside of Python's lock."""
    labels = {name: label for label, name in enumerate(source.classes)}
    opened = partial(decode, short_side=source.stored_side, max_megapixels=max_megapixels)
    remaining = source.records()

    def read(record: Record) -> tuple[str, Read | str]:
        """The image, or why there is none."""
        try:
            content = record.read()
            decoded = (record.decode or opened)(content)
        except OSError as error:
            return record.id, f"can't be read: {error.strerror or error}"
        except UnusableImage as error:
            return record.id, str(error)
        encoded = encode(decoded.image, lossless=decoded.lossless)
        row = Row(
            id=record.id,
            label=labels[record.class_name],
            domain=record.domain,
            group=record.group or record.id,
            split=record.split,
            source_hash=hashlib.sha256(content).digest(),
            stored_hash=hashlib.sha256(encoded).digest(),
            stored_bytes=len(encoded),
        )
        return record.id, (row, encoded, decoded.note)

    with ThreadPoolExecutor(THREADS) as pool:
        while batch := list(islice(remaining, BATCH)):
            yield from pool.map(read, batch)
