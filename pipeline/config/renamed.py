"""Keys of params.yaml that have another name today, refused with that name."""

from collections.abc import Iterator, Mapping
from typing import Any

RENAMED = {  # * stands for any key
    ("train",): "workers",
    ("methods", "*", "train"): "adapter",
    ("tune", "method", "train"): "adapter",
}


def refuse_renamed(raw: Any) -> None:
    """Raise ValueError for the first key of another time."""
    for path, name in RENAMED.items():
        for found in _at(raw, path):
            raise ValueError(f"the key {found!r} is called {name!r} now; rename it")


def _at(raw: Any, path: tuple[str, ...], prefix: str = "") -> Iterator[str]:
    """The keys that a path with stars finds, dotted."""
    if not isinstance(raw, Mapping):
        return
    first, *rest = path
    for key in raw if first == "*" else {first} & raw.keys():
        if rest:
            yield from _at(raw[key], tuple(rest), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
