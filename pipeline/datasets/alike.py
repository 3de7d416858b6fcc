"""Names that a person takes for one: café in two Unicode forms, "cat " or Cat beside cat, 1.0 beside 1."""

import re
import unicodedata
from collections.abc import Iterable, Iterator

from stochca.errors import UserError

_WHOLE = re.compile(r"0*(\d+?)(\.0+)?", re.ASCII)  # as programs for tables write a whole number


def alike(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of different names that look the same, or differ in case alone."""
    first: dict[str, str] = {}
    for name in names:
        if (other := first.setdefault(_as_seen(name), name)) != name:
            yield other, name


def refuse_alike(described: str, kind: str, names: Iterable[str]) -> None:
    """Raise a UserError that shows the first two that are alike; single letters may be meant."""
    for one, other in alike(sorted(names)):
        letters = len(one) == len(other) == 1  # upper and lower case, which may be told apart by intent
        if not letters:
            raise UserError(
                f"{described} has the {kind} {both(one, other)}, which look alike; give them one name if "
                "they are the same, or else names that a person tells apart"
            )


def both(one: str, other: str) -> str:
    """Two names as Python writes them, so that a space or a form of Unicode can be seen."""
    same = unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
    return " and ".join(map(ascii if same else repr, (one, other)))


def forms(name: str) -> list[str]:
    """The name, and as other systems write it: macOS composes letters otherwise than Linux and Windows."""
    return list(dict.fromkeys([name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))]))


def _as_seen(name: str) -> str:
    """Without case, form, invisible characters, and the number of spaces; of whole numbers, the value."""
    text = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
    if whole := _WHOLE.fullmatch(text):
        return whole[1]
    return unicodedata.normalize("NFC", " ".join(text.split()).lower())
