"""Which images a model was trained or selected on, so that it is never tested on them later.

Data changes and splits move: an image that taught yesterday's model may test today's, and so may another one
of the same patient. Images are kept as hashes of 8 bytes, of the name, of the content and of the group each,
for any of them may change without the others.
"""

from hashlib import blake2b
from pathlib import Path

import numpy as np

from pipeline.images.prepared import Prepared, PreparedImages

FILE = "seen_images.npy"


def write_seen(path: Path, *images: PreparedImages) -> None:
    """Write the hashes of the images and of their groups, uint64 in order."""
    hashes = [of_part for part in images for of_part in (hashes_of(part).ravel(), _hashes_of_groups(part))]
    np.save(path, np.unique(np.concatenate(hashes)), allow_pickle=False)


def read_seen(path: Path) -> np.ndarray:
    """What `write_seen` wrote."""
    return np.load(path, allow_pickle=False)


def was_seen(images: PreparedImages, seen: np.ndarray) -> np.ndarray:
    """Which images are among the hashes in `seen`, by name or by content: bool (N,)."""
    by_name, by_content = np.isin(hashes_of(images), seen).T
    return by_name | by_content


def group_was_seen(prepared: Prepared, split: str, seen: np.ndarray) -> np.ndarray:
    """Which images of a split are among the hashes in `seen`, or of a group that is: bool (N,).

    A group is known by its name, and by those of its prepared images, for its name may have changed; a
    content tells of its own image alone, as an empty slice is of many groups.
    """
    everything, images = prepared.select(range(len(prepared.table))), prepared.images(split)
    told = set(seen.tolist())
    groups = {
        group
        for id, group in zip(everything.ids, everything.groups, strict=True)
        if _hash(b"name", id.encode()) in told or _hash(b"group", group.encode()) in told
    }
    return np.array([group in groups for group in images.groups], bool) | was_seen(images, seen)


def hashes_of(images: PreparedImages) -> np.ndarray:
    """Of each image the hash of its name and that of its content: uint64 (N, 2)."""
    pairs = [
        (_hash(b"name", id.encode()), _hash(b"content", encoded))
        for id, encoded in zip(images.ids, images.encoded(), strict=True)
    ]
    return np.array(pairs, np.uint64).reshape(-1, 2)


def _hashes_of_groups(images: PreparedImages) -> np.ndarray:
    return np.array([_hash(b"group", group.encode()) for group in images.groups], np.uint64)


def _hash(kind: bytes, value: bytes) -> int:
    return int.from_bytes(blake2b(value, digest_size=8, person=kind).digest(), "big")
