"""Named settings for known benchmarks: the files of presets/, laid over the shipped params.yaml.

A file says what it is and where its numbers come from, and holds what it sets under `params`. It may extend
a file of presets/common that several share, and have variants, which lie on top: cub/refit. What comes out
depends on these files alone, never on what was in params.yaml before.
"""

import copy
import difflib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, InstanceOf
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark, YAMLError
from ruamel.yaml.tokens import CommentToken

from pipeline.config.params import Params, parse_params
from pipeline.config.sections import Section
from pipeline.config.sentences import validated
from pipeline.runtime.paths import PRESETS as FOLDER
from stochca.errors import UserError

BASE = FOLDER / "common" / "params.yaml"
DEFAULT = "default"
FIRST_WORDS = "# Preset "  # of a params.yaml that was composed
WHOLE = "methods"  # its members are definitions, which are replaced whole
COLUMN = 31  # of comments, where the value leaves room

Keys = tuple[str, ...]  # that lead to a value


def _is_overlay(value: Any) -> Any:
    if not isinstance(value, CommentedMap):
        raise ValueError(f"must hold sections of params.yaml such as training:, found {value!r}")
    return value


Overlay = Annotated[InstanceOf[CommentedMap], BeforeValidator(_is_overlay)]


class Variant(Section):
    title: str
    params: Overlay = Field(default_factory=CommentedMap)


class PresetFile(Variant):
    """A file of presets/, or of presets/common."""

    source: str | None = None  # the paper with section, table and address; None: that of what it extends
    notes: str | None = None  # what a reader of the numbers must know
    extends: str | None = None  # a file that is laid under it, relative to presets/
    variants: dict[str, Variant] = Field(default_factory=dict)


@dataclass(frozen=True)
class Preset:
    """A preset with all that it is made of."""

    name: str
    title: str
    source: str
    notes: list[str]
    overlays: list[CommentedMap]  # the lowest first

    @property
    def text(self) -> str:
        """params.yaml as this preset has it; the shipped one byte for byte where it sets nothing."""
        if not any(self.overlays):
            return BASE.read_text()
        heading = (
            f"{FIRST_WORDS}{self.name}: {self.title}\n"
            f"# From: {self.source}\n"
            "# What stands in [brackets] says where a value comes from.\n\n"
        )
        return heading + write_yaml(self.values)

    @property
    def values(self) -> CommentedMap:
        """What is in `text`, not checked."""
        return merged(BASE.read_text(), self.overlays)

    def params(self) -> Params:
        """What is in `text`, checked.

        Raises:
            UserError: the preset breaks a rule; the sentence names the key by its path.
        """
        return parse_params(self.text, f"the preset {self.name}")


def preset_names() -> list[str]:
    """Every preset, each followed by its variants.

    Raises:
        UserError: there are no presets here, or a file of them breaks a rule.
    """
    names = []
    for path in sorted(FOLDER.glob("*.yaml")):
        variants = dict.fromkeys(variant for file in _chain(path) for variant in file.variants)
        names += [path.stem, *(f"{path.stem}/{variant}" for variant in variants)]
    if not names:
        raise UserError(f"there is no folder {FOLDER} with presets here; run from the project's folder")
    return names


def find_preset(name: str | None) -> Preset:
    """The preset NAME or NAME/VARIANT.

    Raises:
        UserError: there is no such preset, or its file breaks a rule.
    """
    names = preset_names()
    if not name:
        raise UserError(f"name a preset: {', '.join(names)}")
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise UserError(f"there is no preset {name!r}; {hint}there are {', '.join(names)}")
    stem, _, variant = name.partition("/")
    files = _chain(FOLDER / f"{stem}.yaml")
    variants = [file.variants[variant] for file in files if variant in file.variants]
    return Preset(
        name=name,
        title=", ".join([files[-1].title, *(each.title for each in variants[-1:])]),
        source=next((file.source for file in reversed(files) if file.source), "not said"),
        notes=[file.notes for file in files if file.notes],
        overlays=[*(file.params for file in files), *(each.params for each in variants)],
    )


def _chain(path: Path) -> list[PresetFile]:
    """The file and what it extends, the lowest first."""
    try:
        file = _parse(path, path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing; a preset extends it") from None
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise UserError(f"{path} can't be read as YAML: {' '.join(str(error).split())}") from None
    return [*(_chain(FOLDER / file.extends) if file.extends else []), file]


@lru_cache
def _parse(path: Path, text: str) -> PresetFile:
    raw = read_yaml(text)
    if not isinstance(raw, Mapping):
        raise UserError(f"{path} must hold keys such as title: and params:, found {type(raw).__name__}")
    return validated(PresetFile, raw, str(path))


def read_yaml(text: str) -> Any:
    """Mappings come as `CommentedMap`, which knows the comments. Raises `ruamel.yaml.error.YAMLError`."""
    return _yaml().load(text)


def write_yaml(content: CommentedMap) -> str:
    """The other way round, with the comments."""
    stream = io.StringIO()
    _yaml().dump(content, stream)
    return stream.getvalue()


def merged(text: str, overlays: list[CommentedMap]) -> CommentedMap:
    """The YAML `text`, a mapping, under one overlay after the other.

    Mappings are merged key by key, anything else is replaced. A comment behind a value of an overlay says
    where the value comes from; it is added, in brackets, to the comment that the file has there.
    """
    base: CommentedMap = copy.deepcopy(_parsed(text))
    sources: dict[Keys, str] = {}
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


def _merge(base: CommentedMap, overlay: CommentedMap, path: Keys, sources: dict[Keys, str]) -> None:
    for key, value in overlay.items():
        here = (*path, key)
        merges = isinstance(value, CommentedMap) and isinstance(base.get(key), CommentedMap)
        if merges and path != (WHOLE,):
            _merge(base[key], value, here, sources)
        else:
            if key not in base:  # before the last, whose comment holds the lines up to the next section
                base.insert(max(len(base) - 1, 0), key, None)
            base[key] = _in_one_line(value)
            for stale in [known for known in sources if known[: len(here)] == here]:
                del sources[stale]
        if source := _comment(overlay, key):
            sources[here] = source


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


def _add_source(base: CommentedMap, path: Keys, source: str) -> None:
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
