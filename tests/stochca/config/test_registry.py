"""A part of a method is two files, its options and its code, and nothing else in the project names it."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from stochca.averaging.averaging import Averaging
from stochca.config import CHOICES, Adapter, Average, Options, Penalty, StochasticCrossAttention, code_of
from stochca.config.plain import PLAIN
from stochca.config.registry import BASES, CODE, register
from tests.imports import PACKAGES, ROOT

PARTS = [
    options for options in CODE if options not in PLAIN and not issubclass(options, StochasticCrossAttention)
]
# What else may name a part, and why.
ALLOWED = {
    "stochca/__init__.py": "the models VPT and TOAST can be used without a method",
    "stochca/training/pretuning.py": "TOAST's decoders are trained before it is",
    "stochca/adapters/low_rank.py": "a module of peft has the name of LoRA",
    "stochca/backbones/prefixes.py": "a file of weights may hold updates that peft made",
    "pipeline/report/published.py": "what papers report of such methods",
    "pipeline/commands/advice/settings.py": "which of the methods in params.yaml it advises to train",
}
ALSO_A_WORD = {"head"}


def own_words(path: Path) -> Iterator[str]:
    """Every name and every string of a file, without its comments and docstrings."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = None  # a docstring, which the walk comes to later
        for _, value in ast.iter_fields(node):
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, str):
                    yield item


WORDS = {
    path.relative_to(ROOT).as_posix(): "\n".join(own_words(path)).lower()
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if "language" not in path.parts  # whose methods are for other models, and no parts of these
}


@pytest.mark.parametrize("options", PARTS, ids=lambda options: options.name)
def test_a_part_is_named_by_its_two_files_alone(options: type[Options]) -> None:
    code = code_of(options)
    own = {Path(inspect.getfile(each)).relative_to(ROOT).as_posix() for each in (options, code)}
    names = {options.__name__, code.__name__, options.name} - ALSO_A_WORD
    pattern = re.compile(rf"\b({'|'.join(names).lower()})\b")
    assert own <= {file for file, words in WORDS.items() if pattern.search(words)}
    assert {file for file, words in WORDS.items() if pattern.search(words)} - own <= ALLOWED.keys()


@pytest.mark.parametrize("options", CODE)
def test_every_choice_has_its_code(options: type[Options]) -> None:
    """Else it would fail only once training starts."""
    (base,) = (base for base in BASES if issubclass(options, base))
    register(options, code_of(options))  # as a class, whose base is checked
    assert CHOICES[base.choice][options().name] is options


@dataclass(frozen=True)
class Swa(Average):
    name: str = "swa"


@dataclass(frozen=True)
class Nameless(Average):
    pass


@dataclass(frozen=True)
class Elsewhere(Options):
    name: str = "elsewhere"


@dataclass(frozen=True)
class Other(Penalty):
    name: str = "other"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (Swa, "average 'swa' is taken by stochca.config.averaging.swa.Swa"),
        (Nameless, "Nameless needs a default for name"),
        (Elsewhere, "Elsewhere must be below one of Attention, Adapter, Phases, Average, Penalty of stochca"),
        (Other, "Other is a choice of penalties, so Averaging must be below stochca.penalties.term.Term"),
    ],
)
def test_what_does_not_fit_is_not_registered(options: type[Options], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        register(options, Averaging)
    assert options not in CODE


def test_what_is_not_there_is_no_attribute() -> None:
    import stochca.config

    assert issubclass(stochca.config.Lora, Adapter)
    with pytest.raises(AttributeError, match="no attribute 'Laro'"):
        stochca.config.Laro  # noqa: B018
