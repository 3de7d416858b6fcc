from pathlib import Path

import pytest

from pipeline.tracking.server import connect


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with no experiment that a test names, to be copied; to make one takes seconds.

    The processes of the tests share it: the first makes it, and the others wait.
    """
    folder = tmp_path_factory.getbasetemp().parent / "mlflow"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        connect("another")
    return folder / "mlflow.db"
