"""What a run under way is named after: all that decides its result, so that nothing else continues it."""

from pathlib import Path
from typing import Any

from examples.language.paths import HERE
from pipeline.runtime.code import sha256_of_code
from pipeline.runtime.paths import CODE
from pipeline.training.digests import digest_of, versions

DECIDING = ("examples/language/training", "examples/language/text", "stochca")  # as dvc.yaml says


def code_of(stage: str) -> list[Path]:
    """Files and folders that decide the result of `train` or `pretune`."""
    return [CODE / HERE / f"{stage}.py", *(CODE / folder for folder in DECIDING)]


def all_that_decides(decides: dict[str, Any]) -> dict[str, Any]:
    """With the code and the libraries."""
    code = sha256_of_code(CODE / folder for folder in DECIDING)
    return {**decides, "code": code, "versions": versions("transformers", "accelerate")}


def run_name(name: str, decides: dict[str, Any]) -> str:
    """`language-NAME-` and 16 hexadecimal digits."""
    return f"language-{name}-{digest_of(decides)}"
