"""A stage as far as tracking sees it, and what its follower says."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.tracking.follow import Follower
from pipeline.tracking.run_folder import RunFolder


@contextmanager
def followed(folder: Path, experiment: str, name: str, **options: Any) -> Iterator[RunFolder]:
    """An MLflow run whose folder is published while the block goes on."""
    with Follower() as follower, follower.follows(folder, experiment, name, **options) as run:
        yield run


def wait_until_said(capfd: pytest.CaptureFixture[str], words: str) -> str:
    """What the follower has written on the terminal of the stage, up to these words."""
    said, end = "", time.monotonic() + 60
    while words not in said:
        assert time.monotonic() < end, said
        time.sleep(0.1)
        said += capfd.readouterr().err
    return said
