from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Archives are unpacked below the folder in which a stage runs."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
