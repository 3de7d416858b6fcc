"""What work under way is named after: all that decides its result, so that nothing else continues it."""

import hashlib
import json
import socket
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipeline.runtime.code import code_of, sha256_of_code
from stochca.errors import UserError

LIBRARIES = ("torch", "timm", "peft", "numpy", "pillow")  # in which it is computed


def digest_of(decides: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of what JSON can hold, whatever its order."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def code_sha256(stage: str) -> str:
    """Of the code that decides the result of `stage`, the user's extensions included."""
    return sha256_of_code(code_of(stage))


def versions(*libraries: str) -> dict[str, str]:
    """Of the libraries in which every result is computed, and of these."""
    return {name: version(name) for name in (*LIBRARIES, *libraries)}


def check_versions(wanted: Mapping[str, str]) -> None:
    """Raise `UserError` where a library here is not of the version of the machine that gave the work."""
    for name, there in wanted.items():
        try:
            here = version(name)
        except PackageNotFoundError:
            here = "not at all"
        if here.partition("+")[0] != there.partition("+")[0]:  # 2.8.0+cpu is 2.8.0 for another device
            raise UserError(
                f"{socket.gethostname()} has {name} {here}, but the machine that started the training has "
                f"{there}; install the same version on all machines at workers.address"
            )
