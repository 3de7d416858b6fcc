"""Which images a model was trained or selected on, so that it is never tested on them later.

Data changes and splits move: an image that taught yesterday's model may test today's. Images are kept
as hashes of 8 bytes, of the name and of the content each, for either may change without the other.
"""

from hashlib import blake2b
from pathlib import Path

import numpy as np

from pipeline.images.prepared import PreparedImages

FILE = "seen_images.npy"


def write_seen(path: Path, *images: PreparedImages) -> None:
    """Write the hashes of the images, uint64 (2N,) in order."""
    hashes = [hashes_of(part).ravel() for part in images]
    np.save(path, np.unique(np.concatenate(hashes)), allow_pickle=False)


def read_seen(path: Path) -> np.ndarray:
    """What `write_seen` wrote."""
    return np.load(path, allow_pickle=False)


def was_seen(images: PreparedImages, seen: np.ndarray) -> np.ndarray:
    """Which images are among the hashes in `seen`, by name or by content: bool (N,)."""
    by_name, by_content = np.isin(hashes_of(images), seen).T
    return by_name | by_content


def hashes_of(images: PreparedImages) -> np.ndarray:
    """Of each image the hash of its name and that of its content: uint64 (N, 2)."""
    pairs = [
        (_hash(b"name", id.encode()), _hash(b"content", encoded))
        for id, encoded in zip(images.ids, images.encoded(), strict=True)
    ]
    return np.array(pairs, np.uint64).reshape(-1, 2)


def _hash(kind: bytes, value: bytes) -> int:
    return int.from_bytes(blake2b(value, digest_size=8, person=kind).digest(), "big")
