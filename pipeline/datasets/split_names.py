"""What folders and files call the splits: train, Validation, test_images, seg_test, val2017."""

import re
from collections.abc import Iterable

from stochca.errors import UserError

SPLITS = {
    "train": "train",
    "training": "train",
    "trainval": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "eval": "test",  # as Hugging Face's datasets read it
    "evaluation": "test",
}
CLASSES_TOO = ("train", "valid", "evaluation")  # vehicles, the opposite of invalid, documents

_CONTENT = r"(?:images?|imgs?|pictures?|photos?|files?|data|sets?|splits?|seg|masks?|labels?|annotations?)"
_SPLIT = re.compile(
    rf"(?:{_CONTENT}[\W\d_]*)*({'|'.join(SPLITS)})(?:[\W\d_]*{_CONTENT})*[\W\d_]*", re.IGNORECASE
)
_WORDS = re.compile(r"[^\W\d_]+|\d+")
_CONTENTS = re.compile(rf"(?:{_CONTENT}[\W\d_]*)+", re.IGNORECASE)


def split_named(name: str) -> str | None:
    """The split (train, val or test) that a folder's name speaks of, if it speaks of one and nothing else."""
    found = _SPLIT.fullmatch(name)
    return SPLITS[found[1].lower()] if found else None


def splits_among(names: Iterable[str]) -> dict[str, str | None]:
    """The split of each of the names that stand beside each other: what `split_named` says, if of any.

    Else names that differ in the split alone, as pets_train and pets_test; or, where there are no others, a
    name for training and the same with a split, as pets and pets-test-set. Numbers don't count: pets_train_2.

    Raises:
        UserError: trainval is among them, which holds the images of both, and so is one of the two.
    """
    found = _splits_among(names)
    both = {name for name in found if "trainval" in "".join(words_of(name))}
    for name, split in found.items():
        if both and name not in both and split in ("train", "val"):
            raise UserError(
                f"{min(both)} is named like train and val in one, and {name} beside it like {split} alone: "
                "its images would count twice; move the one or the other elsewhere"
            )
    return found


def _splits_among(names: Iterable[str]) -> dict[str, str | None]:
    own = {name: split_named(name) for name in names}
    if any(own.values()):
        return own
    alike: dict[tuple[str, ...], dict[str, str | None]] = {}
    for name in own:
        words = [(word, split_named(word)) for word in words_of(name) if not word.isdecimal()]
        splits = [split for _, split in words if split]
        split = SPLITS.get("".join(splits))  # train and val are trainval
        if split or not splits:
            rest = tuple(word for word, split in words if not split and not names_contents(word))
            alike.setdefault(rest, {})[name] = split
    for beside in alike.values():
        said = {name: split for name, split in beside.items() if split}
        if len(beside) == len(own) and "train" not in said.values():
            said = {name: split or "train" for name, split in beside.items()}
        if len(set(said.values())) > 1:
            return {**own, **said}
    return own


def names_contents(name: str) -> bool:
    """Whether a folder's name says only that it holds images or labels; not all classes are called so."""
    return _CONTENTS.fullmatch(name) is not None


def words_of(name: str) -> list[str]:
    """Its words and numbers in small letters, told apart by others or a capital: turnLeft_2, MNISTTest."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return [word.lower() for word in _WORDS.findall(apart)]
