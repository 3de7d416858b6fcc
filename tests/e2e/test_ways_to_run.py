"""The whole pipeline where there is no git, and in the copies that DVC makes of a project for experiments."""

import json
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.workspace import CLASSES, Workspace
from tests.imports import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def quick(raw: dict[str, Any]) -> None:
    """One method, and its model in MLflow."""
    raw["training"].update(steps=4, warmup=0.0, evaluations=2, checkpoints=2)
    raw["protocol"].update(baseline=[], combined=[])
    raw["compare"].update(reference="stochca", analysed=["stochca"])
    raw["promotion"].update(method="stochca")
    raw["tracking"].update(log_model=True)


def promoted(workspace: Workspace, photo: str) -> str:
    """The class that the champion gives to an image, after one was made."""
    assert "it is the champion" in workspace.run("stochca", "promote")
    told = workspace.run("stochca", "predict", "models:/stochca@champion", photo, "--json")
    return str(json.loads(told)[0]["predictions"][0]["class"])


def runs(workspace: Workspace, *columns: str) -> list[Sequence[str]]:
    """Of the trainings in MLflow's database of the project."""
    with closing(sqlite3.connect(workspace.folder / "mlflow.db")) as database:
        return database.execute(
            f"select {', '.join(columns)} from runs where name like '%-all-0' order by name"
        ).fetchall()


def test_a_download_without_git_goes_all_the_way(tmp_path: Path) -> None:
    """`make demo`, but for the installation; in a folder whose name is not plain."""
    workspace = Workspace(tmp_path / "größer, 100 % (1)")
    workspace.edit_params(quick)
    shutil.rmtree(workspace.folder / ".git")
    assert "dvc config --local core.no_scm true" in workspace.run("stochca", "check", expect=2)
    (workspace.folder / ".venv").mkdir()
    for name in ("constraints.txt", "pyproject.toml", ".venv/.ready"):
        (workspace.folder / name).touch()
    output = workspace.run("make", "--file", str(ROOT / "Makefile"), "demo")
    assert "Open reports/index.html" in output
    assert "stochca" in (workspace.folder / "reports" / "index.html").read_text()
    assert "up to date" in workspace.run("dvc", "repro", "compare")
    assert runs(workspace, "name", "status") == [("stochca-all-0", "FINISHED")]
    assert promoted(workspace, "photos/red/00.png") in CLASSES
    exported = workspace.run("stochca", "export", "models:/stochca@champion", "--to", "timm")
    assert "logits differ from the original by at most" in exported


def test_an_experiment_in_a_copy_leaves_its_runs_in_the_project(tmp_path: Path) -> None:
    """DVC deletes the copy, and MLflow's database in it would go along; the images are tracked by DVC."""
    workspace = Workspace(tmp_path / "project")
    workspace.edit_params(quick)
    workspace.edit_params(lambda raw: raw["dataset"].update(root="data/raw/photos"))
    (workspace.folder / "data" / "raw").mkdir(parents=True)
    (workspace.folder / "photos").rename(workspace.folder / "data" / "raw" / "photos")
    workspace.run("dvc", "add", "data/raw/photos")
    workspace.commit()
    workspace.run(
        "dvc", "exp", "run", "--temp", "--name", "higher", "--set-param", "training.lr=1e-4", "compare"
    )
    assert not (workspace.folder / "models").exists()  # nothing else is left here
    ((name, status, files),) = runs(workspace, "name", "status", "artifact_uri")
    assert (name, status) == ("stochca-all-0", "FINISHED")
    assert files.startswith((workspace.folder / "mlruns").as_uri())
    workspace.run("dvc", "exp", "apply", "higher")
    with closing(sqlite3.connect(workspace.folder / "mlflow.db")) as database:
        rates = database.execute("select value from params where key = 'training.lr'").fetchall()
    assert {float(rate) for (rate,) in rates} == {1e-4}
    assert promoted(workspace, "data/raw/photos/red/00.png") in CLASSES
