"""The rooms of the project: imports run one way, and what decides a result is what dvc.yaml says."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.imports import ROOT, file_of

# Each room may import those before it.
ROOMS = {
    package: rooms.split()
    for package, rooms in {
        "stochca": """
            errors _typing _torchvision _command config timm_models backbones compute data evaluation
            attention adapters phases penalties averaging training extending analysis language
        """,
        "pipeline": """
            runtime config images datasets weights tracking training search analysis report registry
            commands backbone prepare pretune train tune analyse compare cli
        """,
        "flows": "stages serving flow train search retrain serve",
        "examples": "language",
    }.items()
}


def imports(path: Path) -> Iterator[str]:
    """Dotted names of the project's modules that a file imports, also those that only type checkers see."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if file_of(name) is not None)


def modules(package: str) -> dict[str, Path]:
    paths = (ROOT / package).rglob("*.py")
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}


@pytest.mark.parametrize("package", ROOMS)
def test_every_file_is_in_a_room_that_imports_those_below_it(package: str) -> None:
    rooms = ROOMS[package]
    for name, path in modules(package).items():
        if name == f"{package}.__init__":
            continue
        room = name.split(".")[1]
        assert room in rooms, f"{name} is in no room"
        for imported in imports(path):
            first, *rest = imported.split(".")
            if first == package and rest:
                assert rooms.index(rest[0]) <= rooms.index(room), f"{name} imports {imported}"


@pytest.mark.parametrize("package", ROOMS)
def test_no_circle(package: str) -> None:
    graph = {
        path: {file for name in imports(path) if (file := file_of(name)) is not None} - {path}
        for path in modules(package).values()
    }
    done: set[Path] = set()

    def follow(path: Path, trail: tuple[Path, ...]) -> None:
        names = " -> ".join(str(file.relative_to(ROOT)) for file in (*trail, path))
        assert path not in trail, f"a circle: {names}"
        if path not in done:
            for imported in graph.get(path, ()):
                follow(imported, (*trail, path))
            done.add(path)

    for path in graph:
        follow(path, ())


def test_the_folder_of_a_package_shows_its_rooms_alone() -> None:
    """pipeline/ has the stages, the command line and rooms; nothing else is to be searched there."""
    stages = {"backbone", "prepare", "pretune", "train", "tune", "analyse", "compare", "cli", "__init__"}
    assert {path.stem for path in (ROOT / "pipeline").glob("*.py")} == stages
