"""Reads every image of a dataset once: decoded, checked, made small and put on disk."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import IO, NamedTuple

from pipeline.datasets.source import LEFT_OUT, USED, Problem, Record, Source
from pipeline.images.decoding import UnusableImage, decode, encode, hash_of_pixels
from pipeline.images.levels import Levels, Span, joined, levels_of
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
    is_blank: bool = False  # of one colour
    length: float = 1.0  # of the long side, in short sides


class Read(NamedTuple):
    """An image that was read."""

    row: Row
    encoded: bytes  # its file as it is stored
    note: str | None  # what is odd about it
    span: Span | None  # of values that mean nothing without the levels of the set


def ingest(
    source: Source, store: IO[bytes], max_megapixels: float
) -> tuple[list[Row], list[Problem], Levels | None]:
    """Write every usable image of `source` to `store`, encoded, one right after the other in its order.

    Where there are grey values of more than 8 bits, all images are read again once it is known what these
    lie between.

    Returns:
        A row per stored image, what was wrong or odd about the others and these, and the levels of such
        values, if there are any.

    Raises:
        UserError: no image of a split could be used, which would be replaced by a draw; or a record is not as
            the source announced it.
    """
    spans: list[Span] = []
    rows, problems = _store(source, store, max_megapixels, None, spans)
    if not spans:
        return rows, problems, None
    levels = levels_of(spans)
    store.seek(0)
    store.truncate()
    rows, problems = _store(source, store, max_megapixels, levels, [])
    for span in joined(spans):
        count = sum(each.kind == span.kind for each in spans)
        black, white = levels[span.kind]
        problem = f"have grey values of more than 8 bits, {span}"
        action = f"{black:g} is black and {white:g} white"
        problems.append({"file": f"{count:,} images", "problem": problem, "action": action})
    return rows, problems, levels


def _store(
    source: Source, store: IO[bytes], max_megapixels: float, levels: Levels | None, spans: list[Span]
) -> tuple[list[Row], list[Problem]]:
    """As `ingest`, by given levels; what grey values of more than 8 bits lie between is added to `spans`."""
    rows: list[Row] = []
    problems: list[Problem] = []
    left_out: dict[str, Problem] = {}  # the first of each split
    ids: set[str] = set()
    for record, result in track(
        _in_threads(source, max_megapixels, levels),
        source.count,
        "reading images" if levels is None else "reading images again, by the values of all",
    ):
        if isinstance(result, str):
            problems.append({"file": record.id, "problem": result, "action": LEFT_OUT})
            if record.split is not None:
                left_out.setdefault(record.split, problems[-1])
            continue
        row, encoded, note, span = result
        if row.id in ids:
            raise UserError(
                f"the dataset lists the image {row.id} twice; take one of them away, or give it another id"
            )
        ids.add(row.id)
        if span is not None:
            spans.append(span)
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


def _in_threads(
    source: Source, max_megapixels: float, levels: Levels | None
) -> Iterator[tuple[Record, Read | str]]:
    """In order, a batch at a time; Pillow decodes outside of Python's lock."""
    labels = {name: label for label, name in enumerate(source.classes)}
    opened = partial(decode, short_side=source.stored_side, max_megapixels=max_megapixels)
    remaining = source.records()

    def read(record: Record) -> tuple[Record, Read | str]:
        """The image, or why there is none."""
        try:
            content = record.read()
            own = (record.decode or opened)(content)
            decoded = own.at(levels)
        except OSError as error:
            return record, f"can't be read: {error.strerror or error}"
        except UnusableImage as error:
            return record, str(error)
        _check_announced(record, source)
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
            is_blank=decoded.image.getcolors(1) is not None,
            length=max(decoded.image.size) / min(decoded.image.size),
        )
        span = None if own.grey is None else Span.of(own.grey.values)
        return record, Read(row, encoded, decoded.note, span)

    with ThreadPoolExecutor(THREADS) as pool:
        while batch := list(islice(remaining, BATCH)):
            yield from pool.map(read, batch)


def _check_announced(record: Record, source: Source) -> None:
    for key, found, allowed in (
        ("class", record.class_name, source.classes),
        ("domain", record.domain, source.domains),
        ("split", record.split or USED[0], USED),  # None: it is drawn
    ):
        if found not in allowed:
            raise UserError(
                f"the dataset lists the image {record.id} with the {key} {found!r}, which is none of "
                f"{', '.join(allowed)}; correct it there, or in the file that reads the dataset"
            )
