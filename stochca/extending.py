"""Penalties, adapters and averaging rules of your own (docs/extending.md walks through one of each)."""

from typing import Any

from stochca._typing import TimmModule
from stochca.adapters.adaptation import Adaptation
from stochca.averaging import AVERAGES, Averaging
from stochca.config import CHOICES, Adapter, Average, Options, Penalty
from stochca.penalties.terms import PENALTIES, Term
from stochca.training.composition import ADAPTATIONS

__all__ = ["TimmModule", "register"]

# The base of the settings -> the choice in params.yaml, the base of the code, and where it is looked up.
KINDS: dict[type[Options], tuple[str, type, dict[Any, Any]]] = {
    Penalty: ("penalties", Term, PENALTIES),
    Adapter: ("adapter", Adaptation, ADAPTATIONS),
    Average: ("average", Averaging, AVERAGES),
}


def register(settings: type[Options], code: type) -> None:
    """Let a method choose `settings` by its name; `code` carries it out.

    Args:
        settings: a frozen dataclass below `Penalty`, `Adapter` or `Average`, with a default for `name`.
        code: a class below `Term`, `Adaptation` or `Averaging`, made with an instance of `settings` first.

    Raises:
        ValueError: the classes don't belong together, the name is missing, or another class has it.
    """
    base = next((base for base in KINDS if issubclass(settings, base)), None)
    if base is None:
        raise ValueError(f"{settings.__name__} must be below Penalty, Adapter or Average of stochca.config")
    choice, code_base, codes = KINDS[base]
    if not issubclass(code, code_base):
        raise ValueError(
            f"{settings.__name__} is a choice of {choice}, so {code.__name__} must be below "
            f"{code_base.__module__}.{code_base.__name__}"
        )
    name = getattr(settings, "name", "")
    if not name:
        raise ValueError(f"{settings.__name__} needs a default for name, by which params.yaml chooses it")
    known = CHOICES[choice].get(name, settings)
    if (known.__module__, known.__qualname__) != (settings.__module__, settings.__qualname__):
        raise ValueError(f"{choice} {name!r} is taken by {known.__module__}.{known.__qualname__}")
    CHOICES[choice][name] = settings
    codes[settings] = code
