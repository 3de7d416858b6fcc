"""Lays a few settings over a YAML file without losing its comments.

Mappings are merged key by key, anything else is replaced. A comment behind a value of an overlay says where
the value comes from; it is added, in brackets, to the comment that the file has there.
"""

import copy
import io
from functools import lru_cache
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark
from ruamel.yaml.tokens import CommentToken

WHOLE = "methods"  # its members are definitions, which are replaced whole
Path = tuple[str, ...]
COLUMN = 31  # of comments, where the value leaves room


def read_yaml(text: str) -> Any:
    """Mappings come as `CommentedMap`, which knows the comments. Raises `ruamel.yaml.error.YAMLError`."""
    return _yaml().load(text)


def write_yaml(content: CommentedMap) -> str:
    """The other way round, with the comments."""
    stream = io.StringIO()
    _yaml().dump(content, stream)
    return stream.getvalue()


def merged(text: str, overlays: list[CommentedMap]) -> CommentedMap:
    """The YAML `text`, a mapping, under one overlay after the other."""
    base: CommentedMap = copy.deepcopy(_parsed(text))
    sources: dict[Path, str] = {}
    for overlay in overlays:
        _merge(base, overlay, (), sources)
    for path, source in sources.items():
        _add_source(base, path, source)
    return base


@lru_cache(maxsize=1)
def _parsed(text: str) -> Any:
    return read_yaml(text)


def _yaml() -> YAML:
    yaml = YAML()
    yaml.width = 100_000  # a line stays one
    yaml.preserve_quotes = True
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return yaml


def _merge(base: CommentedMap, overlay: CommentedMap, path: Path, sources: dict[Path, str]) -> None:
    for key, value in overlay.items():
        here = (*path, key)
        merges = isinstance(value, CommentedMap) and isinstance(base.get(key), CommentedMap)
        if merges and path != (WHOLE,):
            _merge(base[key], value, here, sources)
        else:
            _put(base, key, _in_one_line(value))
            for stale in [known for known in sources if known[: len(here)] == here]:
                del sources[stale]
        if source := _comment(overlay, key):
            sources[here] = source


def _put(base: CommentedMap, key: str, value: Any) -> None:
    if key in base:
        base[key] = value
    else:  # before the last, whose comment holds the lines up to the next section
        base.insert(max(len(base) - 1, 0), key, value)


def _in_one_line(value: Any) -> Any:
    """A copy in flow style, which has room for the one comment behind it."""
    if isinstance(value, CommentedMap):
        copied: Any = CommentedMap((key, _in_one_line(item)) for key, item in value.items())
    elif isinstance(value, CommentedSeq):
        copied = CommentedSeq(_in_one_line(item) for item in value)
    else:
        return value
    copied.fa.set_flow_style()
    return copied


def _comment(mapping: CommentedMap, key: str) -> str:
    """What stands behind the value, without its ``#``."""
    token = _token(mapping, key)
    return "" if token is None else token.value.split("\n")[0].lstrip("# ").strip()


def _token(mapping: CommentedMap, key: str) -> CommentToken | None:
    tokens = mapping.ca.items.get(key)
    return tokens[2] if tokens else None


def _add_source(base: CommentedMap, path: Path, source: str) -> None:
    *parents, key = path
    for parent in parents:
        base = base[parent]
    token = _token(base, key)
    if token is None:
        token = CommentToken(f"# [{source}]\n", CommentMark(COLUMN), None)
        base.ca.items.setdefault(key, [None, None, None, None])[2] = token
    else:  # its lines after the first are those between this key and the next
        first, newline, rest = token.value.partition("\n")
        token.value = f"{first} [{source}]{newline}{rest}"
