from pathlib import Path

import pytest

from flows.stages.graph import changed_stages, needed_stages
from stochca.errors import UserError
from tests.flows.project import Project
from tests.imports import ROOT

DIAMOND = {
    "first": (0.0, []),
    "right": (0.0, ["first"]),
    "left": (0.0, ["first"]),
    "compare": (0.0, ["left", "right"]),
    "apart": (0.0, []),
}


@pytest.fixture(scope="module")
def diamond(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("graph") / "project", DIAMOND)


def test_stages_come_after_what_they_need(diamond: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(diamond.folder)
    assert list(needed_stages(["compare"]).items()) == [
        ("first", []),
        ("right", ["first"]),
        ("left", ["first"]),
        ("compare", ["right", "left"]),
    ]
    assert list(needed_stages(["left", "apart"])) == ["first", "left", "apart"]


def test_the_projects_own_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    stages = needed_stages(["compare"])
    assert list(stages)[-1] == "compare"
    assert stages["stochca@all-0"] == ["backbone", "prepare"]
    assert set(stages["compare"]) == set(stages) - {"compare"}
    assert set(needed_stages(["baseline"])) == {
        "backbone",
        "prepare",
        "baseline@linear_probe-all-0",
        "baseline@finetune-all-0",
        "baseline@lp_ft-all-0",
    }


def test_an_unknown_target_gets_the_nearest_names(diamond: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(diamond.folder)
    with pytest.raises(UserError, match=r"dvc\.yaml has no stage 'compar'; did you mean compare"):
        needed_stages(["compar"])


def test_a_folder_without_dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no DVC project here"):
        needed_stages(["compare"])


def test_a_broken_dvc_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path / "project", DIAMOND)
    project.write_stages({"compare": {"comand": "true"}})
    monkeypatch.chdir(project.folder)
    with pytest.raises(UserError, match=r"dvc\.yaml can't be used: .*validation failed"):
        needed_stages(["compare"])


def test_what_changed_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path / "project", {"first": (0.0, []), "compare": (0.0, ["first"])})
    monkeypatch.chdir(project.folder)
    assert set(changed_stages(["compare"])) == {"first", "compare"}
    project.run("-m", "dvc", "repro", "--quiet", environment={})
    assert changed_stages(["compare"]) == {}
    (project.folder / "outs" / "first").write_text("by hand")
    assert changed_stages(["compare"]) == {
        "first": ["outs/first is modified"],
        "compare": ["outs/first is modified"],
    }
