"""The embedded tracking follows its folder: MLflow's database has whole paths to the artifacts beside it."""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from pipeline.runtime.paths import ARTIFACTS, DATABASE, of_the_project, whole_address

# The columns of MLflow's tables that say where artifacts are.
PLACES = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("experiments", "artifact_location"),
)


def follow_folder(uri: str) -> None:
    """After the project was moved or copied, let its database, at `uri`, mean the artifacts of the project.

    One that is not the project's stays as it is: a server's, or a file outside its folder. Artifacts that lie
    elsewhere stay there: in a bucket, in a folder of another name, or in one that holds what is not here.

    Raises:
        sqlite3.Error: the file is no database, or can't be written to.
    """
    kind, _, path = uri.partition(":///")
    database, here = Path(path), of_the_project(ARTIFACTS)
    is_own = database == of_the_project(DATABASE) or of_the_project(Path()) in database.parents
    if kind != "sqlite" or not is_own or not database.exists():
        return
    with closing(sqlite3.connect(database)) as connection, connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        places = [place for place in PLACES if place[0] in tables]
        if "experiments" not in tables:
            return
        known = connection.execute("SELECT artifact_location, experiment_id FROM experiments").fetchall()
        roots = {found for experiment in known if (found := root_of(*experiment)) not in (None, here)}
        for before in roots:
            if before.name != here.name or _has_others(connection, places, before, here):
                continue
            for table, column in places:
                for old, new in ((before.as_uri(), here.as_uri()), (str(before), str(here))):
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                    )


def _has_others(
    connection: sqlite3.Connection, places: list[tuple[str, str]], before: Path, here: Path
) -> bool:
    """Whether artifacts of the database lie below `before`, and are not below `here` too."""
    columns = [connection.execute(f"SELECT DISTINCT {column} FROM {table}") for table, column in places]
    found = (local_folder(location) for rows in columns for (location,) in rows)
    below = [path.relative_to(before) for path in found if path and before in path.parents]
    return any((before / path).exists() and not (here / path).exists() for path in below)


def root_of(location: str | None, experiment_id: str | int) -> Path | None:
    """Where the artifacts of all experiments are, if that of one of them is a folder of this machine.

    A server, and MLflow left to itself, give each experiment a folder below, named after its id.
    """
    folder = local_folder(location)
    return folder.parent if folder is not None and folder.name == str(experiment_id) else folder


def local_folder(location: str | None) -> Path | None:
    """Where artifacts are, if that is an address or a whole path of this machine."""
    parts = urlparse(location or "")
    if parts.scheme not in ("", "file"):
        return None
    path = Path(url2pathname(parts.path))
    return path if path.is_absolute() else None


if __name__ == "__main__":
    with suppress(sqlite3.Error):  # MLflow, which is started next, says it of its database
        follow_folder(whole_address(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{DATABASE}"))
