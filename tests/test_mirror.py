"""Tests mirror the rooms: what tests pipeline/images/splits.py is tests/pipeline/images/test_splits.py."""

from pathlib import Path

import pytest

from tests.imports import PACKAGES, ROOT

# What several modules of a room do together; no module alone would be looked for.
TOGETHER = {
    "examples/language/test_stages.py",
    "pipeline/datasets/test_dataset_params.py",
    "pipeline/images/test_hostile_properties.py",
    "pipeline/search/test_nodes.py",
    "pipeline/search/test_restore.py",
    "pipeline/test_stages.py",
    "pipeline/training/test_adapters.py",
    "stochca/adapters/test_training.py",
    "stochca/test_command.py",
    "stochca/test_ecosystem.py",
    "stochca/test_import.py",
    "stochca/timm_models/families/test_adapters.py",
    "stochca/timm_models/families/test_penalties.py",
    "stochca/timm_models/families/test_table.py",
}


def subject(test: Path) -> Path | None:
    """The module or room that a file of tests is named after, if only with the start of its name."""
    room = ROOT / test.relative_to(ROOT / "tests").parent
    words = test.stem.removeprefix("test_").split("_")
    names = ["_".join(words[:end]) for end in range(len(words), 0, -1)]
    found = [place for name in names for place in (room / f"{name}.py", room / name) if place.exists()]
    return found[0] if found else room if names[0] == room.name else None


@pytest.mark.parametrize("package", PACKAGES)
def test_a_file_of_tests_is_named_after_a_module_of_its_room(package: str) -> None:
    tests = (ROOT / "tests" / package).rglob("test_*.py")
    lost = {str(test.relative_to(ROOT / "tests")) for test in tests if subject(test) is None}
    assert lost <= TOGETHER
