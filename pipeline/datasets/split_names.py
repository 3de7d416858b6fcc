"""What folders and files call the splits: train, Validation, test_images, seg_test, val2017."""

import re

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
CLASSES_TOO = ("train", "valid")  # vehicles, and the opposite of invalid

_CONTENT = r"(?:images?|imgs?|pictures?|photos?|files?|data|sets?|splits?|seg|masks?|labels?|annotations?)"
_SPLIT = re.compile(
    rf"(?:{_CONTENT}[\W\d_]*)*({'|'.join(SPLITS)})(?:[\W\d_]*{_CONTENT})*[\W\d_]*", re.IGNORECASE
)
_CONTENTS = re.compile(rf"(?:{_CONTENT}[\W\d_]*)+", re.IGNORECASE)


def split_named(name: str) -> str | None:
    """The split (train, val or test) that a folder's name speaks of, if it speaks of one and nothing else."""
    found = _SPLIT.fullmatch(name)
    return SPLITS[found[1].lower()] if found else None


def names_contents(name: str) -> bool:
    """Whether a folder's name says only that it holds images or labels; not all classes are called so."""
    return _CONTENTS.fullmatch(name) is not None
