"""What every source of weights delivers."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pipeline.runtime.files import sha256
from stochca.errors import UserError


@dataclass(frozen=True)
class Weights:
    """A state dict with its origin."""

    state_dict: dict[str, Tensor]
    source: str  # as in backbone.weights; for the hub with the repository's id
    sha256: str | None  # of the wheel or file
    license: str | None


def check_sha256(path: Path, expected: str | None, subject: str) -> str:
    """The file's SHA-256; raises `UserError` when `expected`, if given, is another one."""
    found = sha256(path)
    if expected is not None and found != expected.lower():
        raise UserError(
            f"{subject} has the sha256 {found}, but backbone.sha256 is {expected}; it was not opened: "
            "set backbone.sha256 to that of the file you trust"
        )
    return found


def log(line: str) -> None:
    """A line about the progress of the stage."""
    print(f"backbone: {line}", flush=True)
