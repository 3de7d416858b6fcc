"""What a run under way is named after: all that decides its result, so that nothing else continues it."""

import hashlib
from typing import Any

from pipeline.runtime.paths import CODE
from pipeline.training.digests import digest_of

DECIDING = ("examples/language/training", "examples/language/text", "stochca")  # as dvc.yaml says


def run_name(name: str, decides: dict[str, Any]) -> str:
    """`language-NAME-` and 16 hexadecimal digits."""
    return f"language-{name}-{digest_of({**decides, 'code': _code_sha256()})}"


def _code_sha256() -> str:
    code = hashlib.sha256()
    for folder in DECIDING:
        for path in sorted((CODE / folder).rglob("*.py")):
            code.update(path.read_bytes())
    return code.hexdigest()
