"""The code that decides the result of each stage; dvc.yaml says the same."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from pipeline.runtime.kept import files_below
from pipeline.runtime.paths import CODE, EXTENSIONS

TRAINING = ("stochca", "pipeline/training", "pipeline/images")
DECIDING = {
    "backbone": ("pipeline/backbone.py", "pipeline/weights", "stochca"),
    "prepare": ("pipeline/prepare.py", "pipeline/datasets", "pipeline/images", "extensions"),
    "tune": ("pipeline/tune.py", "pipeline/search", *TRAINING, "extensions"),
    "pretune": ("pipeline/pretune.py", *TRAINING, "extensions"),
    "train": ("pipeline/train.py", *TRAINING, "extensions"),
    "analyse": ("pipeline/analyse.py", "pipeline/analysis", *TRAINING),
    "compare": ("pipeline/compare.py", "pipeline/report", "pipeline/images", "stochca"),
}


def code_of(stage: str) -> list[Path]:
    """Files and folders; of the user's extensions those of the project's folder."""
    return [EXTENSIONS if place == str(EXTENSIONS) else CODE / place for place in DECIDING[stage]]


def sha256_of_code(places: Iterable[Path]) -> str:
    """Of files, and of all in folders: an extension may read a table that lies beside it."""
    code = hashlib.sha256()
    for place in places:
        for path in [place] if place.is_file() else sorted(filter(Path.is_file, files_below(place))):
            code.update(path.read_bytes())
    return code.hexdigest()
