"""Python modules of the project's own that params.yaml names, imported before its methods are read."""

import re
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from stochca.errors import UserError

FOLDER = "extensions"  # what training stages depend on


def load_extensions(names: Any, subject: str) -> None:
    """Import the modules, each a file of the folder `extensions`.

    Raises:
        UserError: `names` is no list of such modules, or one of them can't be imported.
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{subject}: extensions must be a list of files in {FOLDER}/, found {names!r}")
    root = str(Path.cwd())
    if names and root not in sys.path:
        sys.path.insert(0, root)
    for name in names:
        path = Path(FOLDER, f"{name}.py")
        if not re.fullmatch(r"[A-Za-z_]\w*", name) or not path.is_file():
            there = ", ".join(sorted(file.stem for file in Path(FOLDER).glob("*.py"))) or "none"
            raise UserError(f"{subject}: extensions names {name!r}, no file is {path}; there are: {there}")
        try:
            import_module(f"{FOLDER}.{name}")
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"{subject}: the extension {_place(error, path)}: {reason}") from error


def _place(error: Exception, path: Path) -> str:
    """The last line of the extension that was running."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{path}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename.endswith(str(path))]
    return f"{path}, line {lines[-1]}" if lines else str(path)
