"""What folders and files call the splits: train, Validation, test_images, seg_test, val2017."""

import re
from collections.abc import Iterable, Mapping, Sequence

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
    """
    own = {name: split_named(name) for name in names}
    if any(own.values()):
        return own
    alike: dict[tuple[str, ...], dict[str, str | None]] = {}
    for name in own:
        splits, rest = _splits_and_rest(name)
        if splits in SPLITS or not splits:
            alike.setdefault(rest, {})[name] = SPLITS.get(splits)
    for beside in alike.values():
        said = {name: split for name, split in beside.items() if split}
        if len(beside) == len(own) and "train" not in said.values():
            said = {name: split or "train" for name, split in beside.items()}
        if len(set(said.values())) > 1:
            return {**own, **said}
    return own


def without_partner(names: Sequence[str]) -> tuple[str, str] | None:
    """Of names that `splits_among` knows no splits of: one that speaks of a split, and one of the same thing.

    As birds_train beside birds_holdout, but no train_station beside an airport.
    """
    for name in names:
        splits, rest = _splits_and_rest(name)
        for other in names if splits else ():
            its_splits, its_rest = _splits_and_rest(other)
            if its_splits != splits and {*rest} & {*its_rest}:
                return name, other
    return None


def refuse_overlaps(splits: Mapping[str, str | None]) -> None:
    """Raise `UserError` where trainval stands beside train or val, or eval, which may be val, beside test."""
    for name, split in splits.items():
        for other, its in splits.items():
            if name == other or split is None or its is None:
                continue
            if _is_both(name) and not _is_both(other) and its != "test":
                raise UserError(
                    f"{name} is named like train and val in one, and {other} beside it like {its} alone: its "
                    "images would count twice; move the one or the other elsewhere"
                )
            if _is_either(name) and not _is_either(other) and its == "test":
                raise UserError(
                    f"{name} stands beside {other}, and may be for validation or for tests; call it val, or "
                    "move it elsewhere"
                )


def _is_both(name: str) -> bool:
    return "trainval" in "".join(words_of(name))


def _is_either(name: str) -> bool:
    return any(word.startswith("eval") for word in words_of(name))


def _splits_and_rest(name: str) -> tuple[str, tuple[str, ...]]:
    """The splits that its words speak of, joined, as train and val are trainval; and what else they say."""
    words = [(word, split_named(word)) for word in words_of(name) if not word.isdecimal()]
    rest = tuple(word for word, split in words if not split and not names_contents(word))
    return "".join(split for _, split in words if split), rest


def names_contents(name: str) -> bool:
    """Whether a folder's name says only that it holds images or labels; not all classes are called so."""
    return _CONTENTS.fullmatch(name) is not None


def words_of(name: str) -> list[str]:
    """Its words and numbers in small letters, told apart by others or a capital: turnLeft_2, MNISTTest."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return [word.lower() for word in _WORDS.findall(apart)]
