"""The parts that methods are made of, by the names that params.yaml chooses them by.

A part is its options, a dataclass that is read without torch, and its code, which is imported when it is
used. `register` makes it known: the project's own parts, each in two files, as well as extensions.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from stochca.config.options import Adapter, Attention, Average, Options, Penalty, Phases

BASES: tuple[type[Options], ...] = (Attention, Adapter, Phases, Average, Penalty)
SEVERAL = (Penalty.choice,)  # choices of which a method may have any number

CHOICES: dict[str, dict[str, type[Options]]] = {base.choice: {} for base in BASES}
CODE: dict[type[Options], type | str] = {}


def register(options: type[Options], code: type | str) -> None:
    """Let a method choose `options` by its name; `code` carries it out.

    Args:
        options: a frozen dataclass below `Attention`, `Adapter`, `Phases`, `Average` or `Penalty`, with a
            default for `name`.
        code: a class below `Attending`, `Adaptation`, `FirstPhase`, `Averaging` or `Term`, or where there is
            one, MODULE:CLASS. It is made with an instance of `options` first.

    Raises:
        ValueError: the classes don't belong together, the name is missing, or another class has it.
    """
    if not issubclass(options, BASES):
        bases = ", ".join(base.__name__ for base in BASES)
        raise ValueError(f"{options.__name__} must be below one of {bases} of stochca.config")
    if isinstance(code, type) and not issubclass(code, _loaded(options.code_base)):
        raise ValueError(
            f"{options.__name__} is a choice of {options.choice}, so {code.__name__} must be below "
            f"{options.code_base.replace(':', '.')}"
        )
    if not options.name:
        raise ValueError(f"{options.__name__} needs a default for name, by which params.yaml chooses it")
    known = CHOICES[options.choice].setdefault(options.name, options)
    if (known.__module__, known.__qualname__) != (options.__module__, options.__qualname__):
        raise ValueError(
            f"{options.choice} {options.name!r} is taken by {known.__module__}.{known.__qualname__}"
        )
    CHOICES[options.choice][options.name] = options
    CODE[options] = code


def code_of(options: type[Options]) -> Any:
    """The class that carries out a choice."""
    return _loaded(CODE[options])


def build(config: Options, *arguments: Any) -> Any:
    """The code of a choice, made with its options and with what all code of its kind is given."""
    return code_of(type(config))(config, *arguments)


def _loaded(code: type | str) -> Any:
    if isinstance(code, type):
        return code
    module, _, name = code.partition(":")
    return getattr(import_module(module), name)


def names_of(choice: str, suits: Callable[[Any], bool]) -> str:
    """For a sentence: the values of a choice whose class suits."""
    return " or ".join(repr(name) for name, options in CHOICES[choice].items() if suits(options))
