from pathlib import Path

import pytest

from pipeline.config.precheck import check_work
from stochca.errors import UserError


def test_a_training_that_an_earlier_version_left_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_work()
    today = tmp_path / "work" / "runs" / "stochca-all-0-0123"
    today.mkdir(parents=True)
    (today / "checkpoint.safetensors").touch()
    check_work()
    earlier = tmp_path / "work" / "stochca-all-0-4567"
    earlier.mkdir()
    (earlier / "checkpoint.safetensors").touch()
    with pytest.raises(UserError, match=r"work/stochca-all-0-4567 holds a training .*: make clean"):
        check_work()
