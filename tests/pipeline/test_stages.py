"""dvc.yaml against the code that its stages really run."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.runtime.code import DECIDING
from tests.imports import ROOT, closure, imported_names

STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

# What every stage goes through, and nothing of which decides a result: params.yaml says what is run, and a
# stage depends on what it says; runtime and tracking tell people and MLflow of it.
NEUTRAL = (
    "pipeline/__init__.py",
    "pipeline/runtime",
    "pipeline/config",
    "pipeline/tracking",
    "stochca/__init__.py",
    "stochca/_torchvision.py",
    "stochca/errors.py",
    "stochca/config",
)
MOST_FOLDERS = 4


def module_of(stage: dict[str, Any]) -> Path:
    match = re.match(r"python -m ([\w.]+)", stage["cmd"])
    assert match, stage["cmd"]
    return ROOT / Path(*match[1].split(".")).with_suffix(".py")


def code_of(stage: dict[str, Any]) -> list[str]:
    """The files and folders of code that a stage depends on."""
    return [place for place in stage["deps"] if place.split("/")[0] in ("stochca", "pipeline")]


def is_in(file: str, places: tuple[str, ...] | list[str]) -> bool:
    return any(file == place or file.startswith(f"{place}/") for place in places)


@pytest.mark.slow  # each starts Python
@pytest.mark.parametrize("name", STAGES)
def test_declared_code_is_the_imported_code(name: str) -> None:
    stage = STAGES[name]
    module = module_of(stage)
    declared = code_of(stage)
    assert str(module.relative_to(ROOT)) in declared
    assert len(declared) <= 1 + MOST_FOLDERS
    for place in declared:
        assert (ROOT / place).exists(), f"dvc.yaml names {place}, which is not there"
    needed = {str(file.relative_to(ROOT)) for file in closure(module)}
    if name == "prepare":  # datasets are loaded by their name
        for dataset in (ROOT / "pipeline" / "datasets").glob("*.py"):
            needed |= {str(file.relative_to(ROOT)) for file in closure(dataset)}
    missing = {file for file in needed if not is_in(file, [*declared, *NEUTRAL])}
    assert missing == set(), "imported, but a change would not run the stage again"
    for place in declared:
        assert any(is_in(file, [place]) for file in needed), f"{name} imports nothing of {place}"


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_depends_on_what_decides_nothing(stage: str) -> None:
    assert [place for place in code_of(STAGES[stage]) if is_in(place, NEUTRAL)] == []


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_watches_the_code_that_dvc_watches(name: str) -> None:
    """What work in progress is named after, and what must stand when it ends; extensions with their list."""
    stage, module = STAGES[name], module_of(STAGES[name])
    extensions = [place for place in stage["deps"] if place == "extensions"]
    assert sorted(DECIDING[module.stem]) == sorted([*code_of(stage), *extensions])
    assert f'*code_of("{module.stem}")' in module.read_text()
    assert ("extensions" in stage["params"]) == bool(extensions)


@pytest.mark.parametrize("name", ["prepare", "tune", "pretune", "baseline", "stochca", "combined"])
def test_what_may_be_an_extensions_depends_on_them(name: str) -> None:
    assert "extensions" in STAGES[name]["deps"]


def test_imports_run_one_way() -> None:
    """flows -> pipeline -> stochca; the library knows nothing of the tools around it."""
    forbidden = {
        "stochca": {
            "pipeline",
            "flows",
            "examples",
            "dvc",
            "mlflow",
            "prefect",
            "ray",
            "pydantic",
            "pandas",
            "datasets",
        },
        "pipeline": {"flows", "examples", "prefect"},
        "flows": {"examples"},
    }
    for package, others in forbidden.items():
        for path in (ROOT / package).rglob("*.py"):
            roots = {name.split(".")[0] for name in imported_names(path)}
            assert not roots & others, f"{path.relative_to(ROOT)} imports {sorted(roots & others)}"


def test_the_library_needs_nothing_but_torch_timm_and_numpy() -> None:
    import sys

    timms = {"torchvision", "PIL", "safetensors"}  # which timm does not do without, either
    allowed = {"stochca", "torch", "timm", "numpy", *timms, *sys.stdlib_module_names}
    for path in (ROOT / "stochca").rglob("*.py"):
        roots = {name.split(".")[0] for name in imported_names(path)}
        own = {"low_rank.py": {"peft"}, "evaluation.py": {"sklearn"}}.get(path.name, set())  # if asked for
        if path.parent.name == "language":  # which nothing else imports
            own = {"transformers", "peft"}
        assert roots <= allowed | own, f"{path.relative_to(ROOT)} imports {sorted(roots - allowed)}"


def test_dvc_may_track_images_wherever_they_lie(tmp_path: Path) -> None:
    """`dvc add` refuses what git ignores, and so does `dvc exp run --temp`; images themselves are ignored."""
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    ignored = ["data/raw/x/1.png", "data/raw/a/b/1.png", "data/raw/archive.zip", "data/raw/x/labels.csv"]
    wanted = ["data/raw/x.dvc", "data/raw/a/b.dvc", "data/raw/.gitignore", "data/raw/a/.gitignore"]
    for name in (*ignored, *wanted):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    listed = ["git", "ls-files", "--others", "--exclude-standard"]
    found = subprocess.run(listed, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert sorted(found.stdout.split()) == sorted([".gitignore", *wanted])


def test_what_is_slow_to_make_again_is_there_until_there_is_a_new_one() -> None:
    """DVC deletes other outputs before a stage runs, also where its inputs turn out to be missing."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name in ("backbone", "prepare"):
        (output,) = stages[name]["outs"]
        ((_, options),) = output.items()
        assert options == {"persist": True}
