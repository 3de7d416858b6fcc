"""What work under way is named after: all that decides its result, so that nothing else continues it."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.runtime.paths import CODE, EXTENSIONS

TRAINING = ("stochca", "pipeline/training", "pipeline/images")
DECIDING = {  # stage -> the code that decides its result; dvc.yaml says the same
    "train": ("pipeline/train.py", *TRAINING),
    "pretune": ("pipeline/pretune.py", *TRAINING),
    "tune": ("pipeline/tune.py", "pipeline/search", *TRAINING),
}
LIBRARIES = ("torch", "timm", "peft", "numpy", "pillow")  # in which it is computed


def digest_of(decides: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of what JSON can hold, whatever its order."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def code_sha256(stage: str) -> str:
    """Of the code that decides the result of `stage`, the user's extensions included."""
    return sha256_of_code([*(CODE / name for name in DECIDING[stage]), EXTENSIONS])


def versions(*libraries: str) -> dict[str, str]:
    """Of the libraries in which every result is computed, and of these."""
    return {name: version(name) for name in (*LIBRARIES, *libraries)}


def sha256_of_code(places: Iterable[Path]) -> str:
    """Of Python files, and of those in folders."""
    code = hashlib.sha256()
    for place in places:
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            code.update(path.read_bytes())
    return code.hexdigest()
