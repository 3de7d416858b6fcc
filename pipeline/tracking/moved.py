"""The embedded tracking follows its folder: MLflow's database has whole paths to the artifacts beside it."""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from pipeline.runtime.paths import ARTIFACTS, DATABASE, of_the_project

# The columns of MLflow's tables that say where artifacts are.
PLACES = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("experiments", "artifact_location"),
)


def follow_folder() -> None:
    """After the project was moved or copied, let its database mean the artifacts beside it.

    Artifacts that lie elsewhere, in a bucket or in a folder of another name, stay where they are.

    Raises:
        sqlite3.Error: the file is no database, or can't be written to.
    """
    database, here = of_the_project(DATABASE), of_the_project(ARTIFACTS)
    if not database.exists():
        return
    with closing(sqlite3.connect(database)) as connection, connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        places = [place for place in PLACES if place[0] in tables]
        if "experiments" not in tables:
            return
        known = connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        for before in {found for (location,) in known if (found := _folder(location)) not in (None, here)}:
            for table, column in places:
                for old, new in ((before.as_uri(), here.as_uri()), (str(before), str(here))):
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                    )


def _folder(location: str | None) -> Path | None:
    """The folder of artifacts that an experiment was made with, if it is a project's own."""
    parts = urlparse(location or "")
    if parts.scheme not in ("", "file"):
        return None
    path = Path(url2pathname(parts.path))
    return path if path.name == ARTIFACTS.name and path.is_absolute() else None


if __name__ == "__main__":
    with suppress(sqlite3.Error):  # MLflow, which is started next, says it of its database
        follow_folder()
