"""The code and the params of docs/extending.md, as a reader of the page would copy them."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.datasets import DATASETS, import_built_in
from stochca.config import CHOICES
from stochca.config.registry import CODE
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


@contextmanager
def forgotten() -> Iterator[None]:
    """What is registered inside is not known outside, as in another process."""
    import_built_in()
    tables: list[dict[Any, Any]] = [*CHOICES.values(), CODE, DATASETS]
    before = [dict(table) for table in tables]
    path = list(sys.path)
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)
    sys.path[:] = path
    for name in [name for name in sys.modules if name.split(".")[0] == "extensions"]:
        del sys.modules[name]


def use(raw: dict[str, Any]) -> None:
    """Put the page's params into those of a project, its dataset excepted."""
    raw.update(next(part for part in PARAMS if "extensions" in part))
    raw["methods"].update(METHODS)
