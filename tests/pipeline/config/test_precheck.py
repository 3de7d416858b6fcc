from pathlib import Path

import pytest

from pipeline.config.precheck import check_git, check_work
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


@pytest.mark.parametrize(
    ("files", "fine"),
    [
        ({}, True),  # DVC is not used here
        ({".dvc/config": "[core]\n    analytics = false\n"}, False),
        ({".dvc/config": "[core]\n", ".dvc/config.local": "[core]\n    no_scm = true\n"}, True),
        (
            {".dvc/config": "[core]\n\n['remote \"r\"']\n    url = s3://r\n", ".git": "gitdir: a worktree"},
            True,
        ),
        ({".dvc/config": "[core]\n\n['remote \"r\"']\n    url = s3://r%20\n"}, False),
        ({".dvc/config": "no settings"}, True),  # which DVC says itself
    ],
)
def test_without_git_dvc_has_to_know(
    files: dict[str, str], fine: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    if fine:
        check_git()
    else:
        with pytest.raises(UserError, match=r"is no git repository, .*: dvc config --local core.no_scm true"):
            check_git()
