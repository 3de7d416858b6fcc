"""Which of the project's files a file imports, directly or through others; read from the source.

Imports inside functions count: they run when the stage runs. Lazy attributes of a package don't.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("stochca", "pipeline", "flows", "examples")


def imported_names(path: Path) -> set[str]:
    """Dotted names that a file imports, such as pipeline.runtime.files and pipeline.runtime.files.sha256."""
    names: set[str] = set()
    for node in _walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but what only type checkers read, and a package's lazy attributes."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.FunctionDef) and node.name == "__getattr__":
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _walk(child)


def file_of(name: str) -> Path | None:
    """The project's file behind a dotted name, if there is one."""
    if name.split(".")[0] not in PACKAGES:
        return None
    base = ROOT / Path(*name.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.exists():
            return candidate
    return None


def has_code(path: Path) -> bool:
    return any(not isinstance(node, ast.Expr) for node in ast.parse(path.read_text()).body)


def closure(path: Path) -> set[Path]:
    """The file and every file of the project that running it may import."""
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found.add(current)
        names = imported_names(current)
        # Importing a.b.c runs a/__init__.py and a/b/__init__.py first.
        parents = {".".join(name.split(".")[:end]) for name in names for end in range(1, name.count(".") + 1)}
        waiting += [file for name in names | parents if (file := file_of(name)) is not None]
    return {file for file in found if has_code(file)}
