"""What a change of the code runs again, asked of DVC itself in a workspace where every stage has run."""

import shutil
from contextlib import chdir
from pathlib import Path

import pytest

from tests.imports import ROOT

COPIED = ("stochca", "pipeline", "flows", "extensions", "dvc.yaml", "params.yaml", ".dvcignore")
ALL = {"backbone", "prepare", "pretune", "tune", "baseline", "stochca", "combined", "analyse", "compare"}
TRAININGS = {"pretune", "tune", "baseline", "stochca", "combined"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after `dvc repro`, as far as DVC knows: the outputs are empty."""
    from dvc.repo import Repo

    folder = tmp_path_factory.mktemp("reruns") / "project"
    folder.mkdir()
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    (folder / "data" / "raw").mkdir(parents=True)
    with chdir(folder), Repo() as repo:
        for place in (*repo.index.outs, *repo.index.deps):
            path = Path(place.fs_path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch() if path.suffix else path.mkdir(exist_ok=True)
        repo.commit(force=True)
    assert changed(folder) == set()
    return folder


def changed(folder: Path) -> set[str]:
    """The stages that `dvc repro` would run because of what they depend on; a group for all its items."""
    from dvc.repo import Repo

    with chdir(folder), Repo() as repo:
        return {name.split("@")[0] for name in repo.status()}


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        # What tells people of a result, or keeps it elsewhere, trains nothing again.
        ("pipeline/runtime pipeline/config pipeline/tracking", set()),
        ("pipeline/registry pipeline/commands pipeline/cli.py flows", set()),
        ("pipeline/report pipeline/compare.py", {"compare"}),  # the page, its tables and pictures
        ("pipeline/analysis", {"analyse"}),
        # What decides a model trains again all that it decides, and nothing before it.
        ("pipeline/search", {"tune"}),
        ("pipeline/train.py", {"baseline", "stochca", "combined"}),
        ("pipeline/training/job.py", {*TRAININGS, "analyse"}),
        ("pipeline/images/decoding.py", ALL - {"backbone"}),
        ("pipeline/images/splits.py", ALL - {"backbone"}),
        ("stochca/training/fit.py", ALL - {"prepare"}),
        ("stochca/penalties/delta.py", ALL - {"prepare"}),
        # And what comes before.
        ("pipeline/weights", {"backbone"}),
        ("pipeline/datasets", {"prepare"}),
    ],
)
def test_a_change_runs_again_what_it_decides(places: str, expected: set[str], workspace: Path) -> None:
    files = [
        file
        for place in places.split()
        for file in ([workspace / place] if place.endswith(".py") else (workspace / place).rglob("*.py"))
    ]
    before = {file: file.read_text() for file in files}
    assert before, f"there is no {places}"
    for file, text in before.items():
        file.write_text(f"{text}\n# another line\n")
    try:
        assert changed(workspace) == expected
    finally:
        for file, text in before.items():
            file.write_text(text)
