import pytest


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Archives are unpacked below the folder in which a stage runs."""
    monkeypatch.chdir(tmp_path_factory.mktemp("project"))
