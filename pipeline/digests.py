"""What work under way is named after: all that decides its result, so that nothing else continues it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LIBRARY = Path(__file__).parent.parent / "stochca"


def digest_of(decides: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of what JSON can hold, whatever its order."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def code_sha256(*folders: Path) -> str:
    """Of the Python files in these folders, one folder after the other."""
    code = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            code.update(path.read_bytes())
    return code.hexdigest()
