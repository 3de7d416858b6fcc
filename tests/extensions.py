"""The code and the params of docs/extending.md, as a reader of the page would copy them."""

import re
from pathlib import Path
from typing import Any

import yaml

from tests.imports import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text()
FILES = {
    code.split("\n")[0].removeprefix("# extensions/"): code
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    if code.startswith("# extensions/")
}
SCRIPTS = [
    code
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    if not code.startswith("# extensions/")
]
PARAMS: list[dict[str, Any]] = [
    yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
]
METHODS: dict[str, Any] = {
    name: method for part in PARAMS for name, method in part.get("methods", {}).items()
}


def write_files(folder: Path) -> None:
    """Put the page's files into `folder`."""
    folder.mkdir(exist_ok=True)
    for name, code in FILES.items():
        (folder / name).write_text(code)


def use(raw: dict[str, Any]) -> None:
    """Put the page's params into those of a project, its dataset excepted."""
    raw.update(next(part for part in PARAMS if "extensions" in part))
    raw["methods"].update(METHODS)
