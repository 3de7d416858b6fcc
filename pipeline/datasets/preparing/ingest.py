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
from pipeline.images.decoding import UnusableImage, decode, encode, hash_of_pixels
from pipeline.runtime.progress import track
from stochca.errors import UserError

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
    pixels_hash: bytes  # equal where the pictures are, however they were encoded
    stored_hash: bytes
    stored_bytes: int  # of the encoded image


Read = tuple[Row, bytes, str | None]  # an image with its file as it is stored, and what is odd about it


def ingest(source: Source, store: IO[bytes], max_megapixels: float) -> tuple[list[Row], list[Problem]]:
    """Write every usable image of `source` to `store`, encoded, one right after the other in its order.

    Returns:
        A row per stored image, and what was wrong or odd about the others and these.

    Raises:
        UserError: no image of a split could be used, which would be replaced by a draw.
    """
    rows: list[Row] = []
    problems: list[Problem] = []
    left_out: dict[str, Problem] = {}  # the first of each split
    for record, result in track(_in_threads(source, max_megapixels), source.count, "reading images"):
        if isinstance(result, str):
            problems.append({"file": record.id, "problem": result, "action": LEFT_OUT})
            if record.split is not None:
                left_out.setdefault(record.split, problems[-1])
            continue
        row, encoded, note = result
        if note:
            problems.append({"file": record.id, "problem": note, "action": "kept"})
        store.write(encoded)
        rows.append(row)
    for split in sorted(left_out.keys() - {row.split for row in rows}):
        file, why = left_out[split]["file"], left_out[split]["problem"]
        raise UserError(
            f"no image of the split {split} could be used (for example {file} {why}); repair them, or take "
            "the split away, and its images are drawn from those to train on"
        )
    return rows, problems


def _in_threads(source: Source, max_megapixels: float) -> Iterator[tuple[Record, Read | str]]:
    """In order, a batch at a time; Pillow decodes outside of Python's lock."""
    labels = {name: label for label, name in enumerate(source.classes)}
    opened = partial(decode, short_side=source.stored_side, max_megapixels=max_megapixels)
    remaining = source.records()

    def read(record: Record) -> tuple[Record, Read | str]:
        """The image, or why there is none."""
        try:
            content = record.read()
            decoded = (record.decode or opened)(content)
        except OSError as error:
            return record, f"can't be read: {error.strerror or error}"
        except UnusableImage as error:
            return record, str(error)
        encoded = encode(decoded.image, lossless=decoded.lossless)
        pixels = hash_of_pixels(decoded.image)
        row = Row(
            id=record.id,
            label=labels[record.class_name],
            domain=record.domain,
            group=record.group or record.id,
            split=record.split,
            # What is drawn or cut out by a rule of its own may come out alike and yet be another image.
            source_hash=hashlib.sha256(content).digest() if record.decode else pixels,
            pixels_hash=pixels,
            stored_hash=hashlib.sha256(encoded).digest(),
            stored_bytes=len(encoded),
        )
        return record, (row, encoded, decoded.note)

    with ThreadPoolExecutor(THREADS) as pool:
        while batch := list(islice(remaining, BATCH)):
            yield from pool.map(read, batch)
