"""Reads every image of a dataset once: decoded, checked, made small and put on disk."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import IO, TypeVar

from pipeline.datasets.source import LEFT_OUT, Problem, Record, Source
from pipeline.images.decoding import UnusableImage, encode
from pipeline.runtime.progress import track

Input = TypeVar("Input")
Output = TypeVar("Output")
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


def ingest(source: Source, store: IO[bytes]) -> tuple[list[Row], list[Problem]]:
    """Write every usable image of `source` to `store`, encoded, one right after the other in its order.

    Returns:
        A row per stored image, and what was wrong or odd about the others and these.
    """
    labels = {name: label for label, name in enumerate(source.classes)}
    rows: list[Row] = []
    problems: list[Problem] = []
    results = _in_threads(_read, source.records())
    for record, result in track(results, source.count, "reading images"):
        if isinstance(result, str):
            problems.append({"file": record.id, "problem": result, "action": LEFT_OUT})
            continue
        if result.note:
            problems.append({"file": record.id, "problem": result.note, "action": "kept"})
        store.write(result.encoded)
        rows.append(
            Row(
                id=record.id,
                label=labels[record.class_name],
                domain=record.domain,
                group=record.group,
                split=record.split,
                source_hash=result.source_hash,
                stored_hash=hashlib.sha256(result.encoded).digest(),
                stored_bytes=len(result.encoded),
            )
        )
    return rows, problems


@dataclass(frozen=True)
class _Image:
    encoded: bytes
    source_hash: bytes
    note: str | None


def _read(record: Record) -> tuple[Record, _Image | str]:
    """The image, or why there is none."""
    try:
        content = record.read()
        decoded = record.decode(content)
    except OSError as error:
        return record, f"can't be read: {error.strerror or error}"
    except UnusableImage as error:
        return record, str(error)
    encoded = encode(decoded.image, lossless=decoded.lossless)
    return record, _Image(encoded, hashlib.sha256(content).digest(), decoded.note)


def _in_threads(function: Callable[[Input], Output], items: Iterable[Input]) -> Iterator[Output]:
    """Map in order, a batch at a time; Pillow decodes outside of Python's lock."""
    remaining = iter(items)
    with ThreadPoolExecutor(THREADS) as pool:
        while batch := list(islice(remaining, BATCH)):
            yield from pool.map(function, batch)
