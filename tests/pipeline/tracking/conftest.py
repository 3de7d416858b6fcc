import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.mlflow_server import Server, running


@pytest.fixture(autouse=True)
def in_folder(new_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(new_database, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def session_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def server(session_server: Server) -> Server:
    """A real server, which tests kill and start again."""
    session_server.start_again()
    return session_server
