"""The files of docs/extending.md through real DVC: prepared, trained, compared, searched, and run again."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.workspace import CLASSES, Workspace
from tests.extensions import METHODS, use, write_files

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
COMPOSED = METHODS["short"] | METHODS["stochca+bitfit"] | METHODS["stochca+latest"]


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace.prepared(tmp_path_factory.mktemp("extending") / "project")
    write_files(workspace.folder / "extensions")
    photos = workspace.folder / "photos"
    names = [f"{label}/{path.name}" for label in CLASSES for path in sorted((photos / label).iterdir())]
    rows = [f"{name},{name.split('/')[0]}" for name in names]
    (photos / "labels.csv").write_text("\n".join(["file,class", *rows]))

    def edit(raw: dict[str, Any]) -> None:
        use(raw)
        raw["dataset"].update(name="listed")
        raw["training"].update(steps=4, warmup=0.25, evaluations=2)
        raw["methods"]["composed"] = COMPOSED
        raw["protocol"].update(baseline=[], combined=["composed"])
        raw["compare"].update(reference="stochca", analysed=["stochca"])
        raw["tune"].update(
            trials=1, seeds=[0], grace=0.5, training={}, method={"average": "latest_evaluations"}
        )

    workspace.edit_params(edit)
    workspace.run("dvc", "repro", "compare")
    return workspace


def test_they_are_compared_like_any_other(extended: Workspace) -> None:
    rows = json.loads((extended.folder / "reports" / "comparison.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {"stochca", "composed"}
    run = json.loads((extended.folder / "results" / "composed-all-0" / "run.json").read_text())
    assert "The weights of the last 2 evaluations were averaged." in run["notes"]
    manifest = json.loads((extended.folder / "data" / "prepared" / "manifest.json").read_text())
    assert manifest["dataset"] == "listed"
    photo = extended.folder / "photos" / "red" / "00.png"
    output = extended.run("python", "-m", "pipeline.cli", "predict", "models/composed-all-0", str(photo))
    assert "red" in output


def test_the_search_finds_them_in_its_workers(extended: Workspace) -> None:
    output = extended.run("dvc", "repro", "tune")
    assert "1 of 1" in output
    assert (extended.folder / "reports" / "tune" / "best.yaml").exists()


def test_a_change_of_one_trains_again(extended: Workspace) -> None:
    path: Path = extended.folder / "extensions" / "latest_evaluations.py"
    path.write_text(path.read_text() + "\n# a remark\n")
    changed = set(json.loads(extended.run("dvc", "status", "--json")))
    assert {"prepare", "stochca@all-0", "combined@composed-all-0"} <= changed
    assert "backbone" not in changed
