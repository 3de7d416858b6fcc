"""dvc.yaml against the code that its stages really run."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.datasets import MODULES
from tests.imports import ROOT, closure, imported_names

STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

# Code that a stage runs without importing it.
LOADED_AS_FILES = {
    "pipeline/served.py": {"pipeline/served_model.py"},
    "pipeline/report.py": {
        f"pipeline/templates/{name}" for name in ("report.html", "overview.html", "report.css")
    },
}
LOADED_BY_NAME = {
    "pipeline/prepare.py": MODULES.values(),
    "pipeline/courier.py": ["pipeline.courier_process"],
}


def module_of(stage: dict[str, Any]) -> Path:
    match = re.match(r"python -m ([\w.]+)", stage["cmd"])
    assert match, stage["cmd"]
    return ROOT / Path(*match[1].split(".")).with_suffix(".py")


def declared_code(stage: dict[str, Any]) -> set[str]:
    files: set[str] = set()
    for dependency in stage["deps"]:
        path = ROOT / dependency
        if dependency.split("/")[0] not in ("stochca", "pipeline"):
            continue
        assert path.exists(), f"dvc.yaml names {dependency}, which is not there"
        inside = [path] if path.is_file() else path.rglob("*.*")
        files |= {str(file.relative_to(ROOT)) for file in inside if "__pycache__" not in file.parts}
    return files


@pytest.mark.parametrize("name", STAGES)
def test_declared_code_is_the_imported_code(name: str) -> None:
    stage = STAGES[name]
    needed = {str(file.relative_to(ROOT)) for file in closure(module_of(stage))}
    for file, modules in LOADED_BY_NAME.items():
        if file in needed:
            for module in modules:
                path = ROOT / Path(*module.split(".")).with_suffix(".py")
                needed |= {str(file.relative_to(ROOT)) for file in closure(path)}
    for file, loaded in LOADED_AS_FILES.items():
        if file in needed:
            needed |= loaded
    declared = declared_code(stage)
    assert needed - declared == set(), "imported, but a change would not run the stage again"
    whole = "stochca" in stage["deps"]  # a folder may hold files that only some runs import
    superfluous = {file for file in declared - needed if not (whole and file.startswith("stochca/"))}
    assert {file for file in superfluous if not file.endswith("__init__.py")} == set()


def test_imports_run_one_way() -> None:
    """flows -> pipeline -> stochca; the library knows nothing of the tools around it."""
    forbidden = {
        "stochca": {"pipeline", "flows", "dvc", "mlflow", "prefect", "ray", "pydantic", "pandas", "datasets"},
        "pipeline": {"flows", "prefect"},
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
        own = {"peft"} if path.name == "lora.py" else set()
        assert roots <= allowed | own, f"{path.relative_to(ROOT)} imports {sorted(roots - allowed)}"
