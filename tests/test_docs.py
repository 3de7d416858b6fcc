"""README.md, docs/ and the pages around them: they build as a site, and what they name is there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from pipeline.cli import app
from tests.imports import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/RESULTS.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
# Paths below these folders are the project's own, and not what a run writes.
OURS = "stochca|pipeline|flows|examples|tests|benchmarks|presets|docs|extensions"
OF_THE_READER = {
    f"extensions/{name}.py" for name in ("short_features", "bias_only", "latest_evaluations", "listed")
} | {"examples/language/reports/index.html"}
CODE = re.compile(
    r"```bash\n(.*?)```|`([^`\n]+)`", re.DOTALL
)  # examples of the command line; words in backticks
README_LINES = 120  # what is read in two minutes


def build(repository: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """What `make docs` does."""
    options = ("-W", "--keep-going", "-q", "-c", str(repository / "docs"))
    command = [sys.executable, "-m", "sphinx", *options, "-d", str(site / "read"), str(repository), str(site)]
    return subprocess.run(command, capture_output=True, text=True, cwd=repository)


def test_the_site_builds_and_fetches_nothing_when_it_is_read(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    for page in PAGES:
        html = (tmp_path / page.relative_to(ROOT).with_suffix(".html")).read_text()
        assert (
            re.findall(r'<(?:script|img|iframe)[^>]*src="(?:https?:)?//|<link[^>]*href="https?://', html)
            == []
        )
    for style in (tmp_path / "_static").rglob("*.css"):
        assert re.findall(r"url\(['\"]?(?:https?:)?//|@import", style.read_text()) == []


def test_a_link_that_leads_nowhere_ends_the_build(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    (repository / "docs").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "conf.py", repository / "docs")
    (repository / "README.md").write_text(
        "# Title\n\n[page](docs/gone.md), [heading](#absent), [file](params.lost), ![picture](lost.png),"
        " [good](docs/here.md#there)\n"
    )
    (repository / "docs" / "here.md").write_text("# Here\n\n## There\n\n[back](../README.md#nowhere)\n")
    done = build(repository, tmp_path / "site")
    assert done.returncode != 0
    for target in ("docs/gone.md", "absent", "params.lost", "lost.png", "nowhere"):
        assert target in done.stderr
    assert "there" not in done.stderr


def test_the_readme_is_read_in_two_minutes() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    code = "\n".join(part for found in CODE.findall(text) for part in found)
    files = set(re.findall(rf"(?<![\w./-])(?:{OURS})/[\w./-]*(?:\.\w+|/)", text)) - OF_THE_READER
    assert {name for name in files if not (ROOT / name).exists()} == set()
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # it is a group
    assert set(re.findall(r"^stochca (\w+)", code, re.MULTILINE)) <= commands.keys()
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"\bmake ([a-z-]+)", code)) <= set(targets)
    for name in re.findall(rf"(?:^|python -m )((?:{OURS})(?:\.\w+)+)(?=$|\s)", code, re.MULTILINE):
        assert is_code(name), name


def is_code(name: str) -> bool:
    """Whether a dotted name is a module, or stands in one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:count])
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.exists():
                return count == len(parts) or parts[count] in re.findall(r"\w+", file.read_text())
    return False
