"""dvc.yaml of the example against the code that its stages really run."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from examples.language.paths import HERE, PARAMS_FILE
from examples.language.settings import load_settings
from examples.language.training.digests import DECIDING
from tests.imports import ROOT, closure, imported_names
from tests.pipeline.test_stages import NEUTRAL, is_in

STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / HERE / "dvc.yaml").read_text())["stages"]
# As of the pipeline; and its rooms that the example uses, which decide none of its results.
OWN_NEUTRAL = (*NEUTRAL, "examples/__init__.py", f"{HERE}/paths.py", f"{HERE}/settings.py", "pipeline")


def code_of(stage: dict[str, Any]) -> list[str]:
    return [
        place
        for place in stage["deps"]
        if place.startswith("stochca") or (place.startswith(str(HERE)) and "/data/" not in place)
    ]


@pytest.mark.parametrize("name", STAGES)
def test_declared_code_is_the_imported_code(name: str) -> None:
    file = HERE / f"{name}.py"
    assert STAGES[name]["cmd"].startswith(f"python -m examples.language.{name}")
    declared = [place for place in code_of(STAGES[name]) if place != str(HERE / "results")]
    assert str(file) in declared
    needed = {str(each.relative_to(ROOT)) for each in closure(ROOT / file)}
    # Of what the library has, no more is needed than what the example imports of it.
    missing = {
        each
        for each in needed
        if each.startswith("examples/language") and not is_in(each, [*declared, *OWN_NEUTRAL])
    }
    assert missing == set(), "imported, but a change would not run the stage again"
    for place in declared:
        assert any(is_in(each, [place]) for each in needed), f"{name} imports nothing of {place}"


def test_what_is_under_way_is_named_after_the_code_that_dvc_watches() -> None:
    for name in ("train", "pretune"):
        assert sorted([*DECIDING, f"{HERE}/{name}.py"]) == sorted(code_of(STAGES[name]))


def test_settings_that_are_recorded_are_those_that_dvc_watches() -> None:
    settings = load_settings(ROOT / PARAMS_FILE)
    for name, own in (("untuned", {"training.precision"}), ("train", {"training", "methods.${item.method}"})):
        ((_, watched),) = STAGES[name]["params"][0].items()
        assert {*watched} == own | {f"compare.{key}" for key in settings.compare.answering}


def test_nothing_goes_into_the_cache() -> None:
    """Where a stage that never ran would make every `dvc pull` fail."""
    for stage in STAGES.values():
        for output in stage["outs"]:
            ((_, options),) = output.items()
            assert options["cache"] is False


def test_nothing_imports_the_example() -> None:
    for package in ("stochca", "pipeline", "flows", "benchmarks"):
        for path in (ROOT / package).rglob("*.py"):
            roots = {name.split(".")[0] for name in imported_names(path)}
            assert "examples" not in roots, path


def test_folders_are_those_of_the_code() -> None:
    from examples.language import paths

    outputs = {Path(place) for stage in STAGES.values() for output in stage["outs"] for place in output}
    folders = {paths.BACKBONE, paths.PREPARED, paths.PRETUNED, paths.REPORTS, paths.RESULTS / "untuned"}
    assert folders <= outputs
    assert {place.parent for place in outputs} >= {paths.MODELS, paths.RESULTS}
