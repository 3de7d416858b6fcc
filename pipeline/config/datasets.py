"""The datasets by name: each registers itself, in its file of pipeline/datasets/ or in a project's extension.

Those of pipeline/datasets/ are imported when a name is first looked up, so that a new dataset is a new file
and nothing else. What they need to read images they import only then: params.yaml is read before any work.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from pipeline.runtime.paths import CODE

BUILT_IN = "pipeline.datasets"


@dataclass(frozen=True)
class Facts:
    """What the authors of a benchmark say about it."""

    name: str
    url: str  # where it is downloaded
    classes: int
    images: Mapping[str, int]  # per split (train, val, test), or per domain
    license: str
    citation: str

    @property
    def described(self) -> str:
        """For a sentence that says what to download."""
        return f"{self.name} from {self.url}"

    @property
    def attribution(self) -> str:
        """For the manifest of what is prepared."""
        return f"{self.citation} Source: {self.url}. Changes: made small."


@dataclass(frozen=True)
class Registered:
    """What is known of a dataset before anything of it is read."""

    module: str  # has `load(dataset, sides)`, which returns a pipeline.datasets.source.Source
    facts: Facts | None = None
    images: Mapping[str, int] = field(default_factory=dict)  # as in `Facts`; empty: it has no size of its own
    images_by_source: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # where it has others
    paired: bool = False  # the same subjects in every domain
    sources: tuple[str, ...] | None = None  # what dataset.source may be; None: anything
    example: str | None = None  # of dataset.source, where one is needed
    takes: tuple[str, ...] = ()  # which of labels, label_column and group_column mean something

    @property
    def domains(self) -> tuple[str, ...] | None:
        """None: they are known only when it is read."""
        return None if "train" in self.images else tuple(self.images) or None

    def images_of(self, source: str | None) -> Mapping[str, int]:
        """How many images there are with this dataset.source."""
        return self.images_by_source.get(source or "", self.images)

    def check(self, name: str, source: str | None, **others: str | None) -> None:
        """Raise ValueError where params.yaml says of the dataset `name` what makes no sense.

        `others` are the keys of `takes`.
        """
        if self.example and not source:
            raise ValueError(f"name {name} needs a source, for example source: {self.example}")
        if source is not None and self.sources is not None and source not in self.sources:
            if not self.sources:
                raise ValueError(f"name {name} takes no source, found {source!r}; remove it")
            raise ValueError(f"source must be one of {', '.join(self.sources)}, found {source!r}")
        for key, value in others.items():
            if value is not None and key not in self.takes:
                raise ValueError(f"name {name} takes no {key}; remove it")


DATASETS: dict[str, Registered] = {}


def register(name: str, module: str, *, facts: Facts | None = None, **known: Any) -> None:
    """Let params.yaml say ``dataset: {name: NAME}``; `module` has the function `load`.

    What else is `known` are fields of `Registered`. A benchmark with `facts` has their images, and takes no
    source if it names no `sources`.

    Raises:
        ValueError: another module has the name.
    """
    if not module.startswith(BUILT_IN):
        import_built_in()  # first, so that it is the other module that is refused
    if facts is not None:
        known = {"images": facts.images, "sources": (), **known}
    if (found := DATASETS.setdefault(name, Registered(module, facts, **known)).module) != module:
        raise ValueError(f"the dataset {name!r} is taken by {found}")


def registered(name: str) -> Registered:
    """What is known of the dataset `name`.

    Raises:
        ValueError: there is none of that name.
    """
    import_built_in()
    if name not in DATASETS:
        raise ValueError(f"must be one of {', '.join(DATASETS)}, found {name!r}")
    return DATASETS[name]


@cache
def import_built_in() -> None:
    for module in iter_modules([str(CODE.joinpath(*BUILT_IN.split(".")))]):
        import_module(f"{BUILT_IN}.{module.name}")
