"""What work under way is named after: all that decides its result, so that nothing else continues it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LIBRARY = Path(__file__).parent.parent / "stochca"
# What else decides which images a run sees, and as what.
IMAGES = tuple(Path(__file__).with_name(f"{name}.py") for name in ("protocol", "splits", "prepared"))


def digest_of(decides: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of what JSON can hold, whatever its order."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def code_sha256(*places: Path) -> str:
    """Of these Python files and those in these folders, one place after the other."""
    code = hashlib.sha256()
    for place in places:
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            code.update(path.read_bytes())
    return code.hexdigest()
