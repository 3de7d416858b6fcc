"""Killed at any moment, every stage ends as if nothing had been; the long form is a benchmark."""

from pathlib import Path

import pytest

from benchmarks.torture import torture


@pytest.mark.slow
def test_killed_anywhere_ends_the_same(tmp_path: Path) -> None:
    stages = torture(tmp_path / "workspace", kills=1, seed=1, methods=["stochca"], search=False)
    assert sum(stage.kills for stage in stages) == 1
