"""A project with a real MLflow database and a logged model, moved and copied."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from pipeline.tracking.moved import follow_folder
from pipeline.tracking.server import connect


@pytest.fixture
def project(
    request: pytest.FixtureRequest, new_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Has a run with an artifact, and a version of a registered model.

    With the parameter `served` experiments are as a server makes them: each has a folder named after its id.
    """
    folder = tmp_path / "first one"
    folder.mkdir()
    shutil.copy(new_database, folder)
    monkeypatch.chdir(folder)
    if getattr(request, "param", None) == "served":
        connect("trial")
        with closing(sqlite3.connect("mlflow.db")) as database, database:
            database.execute(
                "UPDATE experiments SET artifact_location = artifact_location || '/' || experiment_id "
                "WHERE artifact_location LIKE '%/mlruns'"
            )
    log_a_run("before")
    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("trial").experiment_id])
    client.create_registered_model("m")
    client.create_model_version("m", f"{run.info.artifact_uri}/note.txt", run.info.run_id)
    return folder


def log_a_run(text: str) -> None:
    experiment = connect("trial")
    with mlflow.start_run(experiment_id=experiment):
        mlflow.log_text(text, "note.txt")


def notes() -> set[str]:
    experiment = connect("trial")
    client = MlflowClient()
    runs = client.search_runs([experiment])
    return {Path(client.download_artifacts(run.info.run_id, "note.txt")).read_text() for run in runs}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in (folder / "mlruns").rglob("*") if path.is_file()}


def test_a_project_that_was_moved_keeps_its_runs_and_its_models(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = project.rename(project.with_name("second"))
    monkeypatch.chdir(moved)
    assert notes() == {"before"}
    log_a_run("after")
    assert notes() == {"before", "after"}
    version = MlflowClient().get_model_version("m", "1")
    assert version.source.startswith((moved / "mlruns").as_uri())
    assert not project.exists()


@pytest.mark.parametrize("project", ["served"], indirect=True)
def test_a_copy_leaves_the_original_alone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = "sqlite:///runs.db"
    Path("mlflow.db").rename("runs.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", own)
    copy = project.with_name("first one, copied")  # begins as the original does
    shutil.copytree(project, copy)
    before = files(project)
    monkeypatch.chdir(copy)
    log_a_run("in the copy")
    assert notes() == {"before", "in the copy"}
    assert files(project) == before
    monkeypatch.chdir(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", own)  # MLflow has made it whole
    assert notes() == {"before"}


def test_artifacts_of_others_in_a_folder_of_the_same_name_stay_theirs(project: Path, tmp_path: Path) -> None:
    """As of a notebook elsewhere that tracks to the project's database."""
    theirs = tmp_path / "notebooks" / "mlruns"
    client = MlflowClient()
    run = client.create_run(client.create_experiment("notebook", theirs.as_uri()))
    client.log_text(run.info.run_id, "of the notebook", "note.txt")
    assert notes() == {"before"}  # the project's, to which it connects
    found = client.download_artifacts(run.info.run_id, "note.txt")
    assert Path(found).read_text() == "of the notebook"
    assert client.get_run(run.info.run_id).info.artifact_uri.startswith(theirs.as_uri())


def test_artifacts_elsewhere_stay_there(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect("trial")
    elsewhere = {"bucket": "s3://bucket/mlruns", "folder": (tmp_path / "artifacts").as_uri()}
    for name, place in elsewhere.items():
        MlflowClient().create_experiment(name, place)
    monkeypatch.chdir(project.rename(project.with_name("second")))
    shared = tmp_path / "shared.db"
    shutil.copy("mlflow.db", shared)
    follow_folder(f"sqlite:///{shared}")
    assert shared.read_bytes() == Path("mlflow.db").read_bytes()
    connect("trial")
    assert shared.read_bytes() != Path("mlflow.db").read_bytes()
    found = {name: MlflowClient().get_experiment_by_name(name).artifact_location for name in elsewhere}
    assert found == elsewhere
