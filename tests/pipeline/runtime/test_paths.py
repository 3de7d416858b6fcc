"""Where the embedded tracking lies, seen from the copies that DVC makes for experiments."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from pipeline.runtime.paths import DATABASE, database_uri, of_the_project
from stochca.errors import UserError


@pytest.mark.parametrize(
    ("working", "project"),
    [
        ("flowers", "flowers"),
        ("flowers/.dvc/tmp/exps/standalone/tmpx1", "flowers"),  # dvc exp run --temp
        ("flowers/.dvc/tmp/exps/tmpx1", "flowers"),  # of a queue
        (
            "all/.dvc/tmp/exps/standalone/tmpx1/flowers",
            "all/flowers",
        ),  # the project is a part of a repository
        ("exps/tmp/flowers", "exps/tmp/flowers"),
    ],
)
def test_an_experiments_copy_tracks_to_the_project_that_it_was_copied_from(
    working: str, project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / working).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / working)
    assert of_the_project(DATABASE) == tmp_path / project / "mlflow.db"


@pytest.mark.parametrize("name", ["a b", "ü", "a#b", "a%41b", "a&b=c", "a'b (1)", "a@b:c", "a;b", "a?b"])
def test_the_address_is_of_the_file_in_the_folder_or_there_is_none(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    if "?" in name:
        with pytest.raises(UserError, match=r"a\?b, because of the question mark"):
            database_uri()
        return
    with create_engine(database_uri()).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x)")
    with closing(sqlite3.connect(tmp_path / name / "mlflow.db")) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("t",)]
