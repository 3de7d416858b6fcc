"""What runs are found again and compared by."""

import os
import posixpath
import re
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``training.lr: 0.0001``; of a list of named settings ``penalties.bss.k: 1``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value):
            value = {item["name"]: {k: v for k, v in item.items() if k != "name"} for item in value}
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def allowed(names: Iterable[str]) -> dict[str, str]:
    """What MLflow may call params or metrics: with _ where it refuses a character, such as + and brackets.

    What are two then, such as ``a+b`` and ``a_b``, end in numbers.
    """
    found: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (name != _allowed(name), name)):  # what may stay as it is does
        new, number = _allowed(name), 2
        while new in found.values():
            new, number = f"{_allowed(name)}_{number}", number + 1
        found[name] = new
    return found


def _allowed(name: str) -> str:
    new = re.sub(r"[^/\w.\- :]", "_", name)
    return new if posixpath.normpath(new) == new else new.replace("/", "_")


def origin() -> dict[str, str]:
    """Tags of every run: its stage, and the commit it is at; a + says that files differ from that."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    commit = ""
    with suppress(OSError):  # there is no git
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return {"stage": os.environ.get("DVC_STAGE", "none"), "git_commit": commit or "none"}


def without_password(uri: str, instead: str = "***@") -> str:
    """An address without the user and the password in it."""
    return re.sub(r"//[^/@\s]*@", f"//{instead}", uri)
