"""How many images the known datasets hold, to say what a protocol costs before anything is downloaded."""

from dataclasses import dataclass, field
from importlib import import_module

from pipeline.config.datasets import MODULES
from pipeline.config.known_domains import KNOWN_DOMAINS
from pipeline.datasets.official import Facts

OPENMOJI = 1898  # emoji without skin tones


@dataclass(frozen=True)
class Images:
    """Images by official split, or by domain where there are none."""

    train: int = 0
    validation: int = 0  # 0: none is official
    test: int = 0
    domains: dict[str, int] = field(default_factory=dict)
    paired: bool = False  # the same subjects in every domain


def known_images(name: str) -> Images | None:
    """The images of the dataset `name`; None: it has no size of its own."""
    if name == "openmoji":
        return Images(domains=dict.fromkeys(KNOWN_DOMAINS[name], OPENMOJI), paired=True)
    facts = known_facts(name)
    if facts is None:
        return None
    if name in KNOWN_DOMAINS:
        return Images(domains=dict(facts.images))
    return Images(facts.images["train"], facts.images.get("val", 0), facts.images["test"])


def known_facts(name: str) -> Facts | None:
    """What the authors of a benchmark say about it, where the dataset `name` is one."""
    return getattr(import_module(MODULES[name]), "FACTS", None)
