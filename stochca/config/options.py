"""What every value of a choice is: a frozen dataclass with a name, whose options are checked."""

from dataclasses import dataclass
from typing import Any, ClassVar

from stochca.config.training import require


@dataclass(frozen=True)
class Options:
    """A name in params.yaml, and the options beside it; other options are refused."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}
    name: str = ""


@dataclass(frozen=True)
class Attention(Options):
    """How the blocks attend while training."""


@dataclass(frozen=True)
class Adapter(Options):
    """What learns."""

    changes_backbone: ClassVar[bool] = True  # whether the backbone's own weights end up different


@dataclass(frozen=True)
class Phases(Options):
    """What happens before the training loop."""


@dataclass(frozen=True)
class Average(Options):
    """Which weights are kept."""


@dataclass(frozen=True)
class Penalty(Options):
    """A term added to the loss."""


def require_not_negative(options: Any, *names: str) -> None:
    """Raise ValueError where one of these options is below 0."""
    for name in names:
        value = getattr(options, name)
        require(value >= 0, f"{name} must be 0 or more, found {value}")
