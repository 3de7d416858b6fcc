"""Named settings for known benchmarks: the files of presets/, laid over the shipped params.yaml.

A file says what it is and where its numbers come from, and holds what it sets under `params`. It may extend
a file of presets/common that several share, and have variants, which lie on top: cub/refit. What comes out
depends on these files alone, never on what was in params.yaml before.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, InstanceOf
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from pipeline.config.overlay import merged, read_yaml, write_yaml
from pipeline.config.params import Params, parse_params
from pipeline.config.sections import Section
from pipeline.config.sentences import validated
from pipeline.runtime.paths import PRESETS as FOLDER
from stochca.errors import UserError

BASE = FOLDER / "common" / "params.yaml"
DEFAULT = "default"
FIRST_WORDS = "# Preset "  # of a params.yaml that was composed


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
