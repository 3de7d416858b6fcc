"""The built wheel: the library alone, and a command that says where it works."""

import email
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.imports import ROOT

COMMAND = "import sys; from stochca._command import main; sys.exit(main())"  # as pip's script has it


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, for building leaves files behind."""
    clone = tmp_path_factory.mktemp("clone")
    ignored = shutil.ignore_patterns("__pycache__")
    for package in ("stochca", "pipeline", "flows"):
        shutil.copytree(ROOT / package, clone / package, ignore=ignored)
    for file in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / file, clone)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", clone, clone], check=True)
    (built,) = clone.glob("*.whl")
    return built


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Somebody else's, with packages of the same names."""
    for name in ("pipeline/__init__.py", "pipeline/cli.py", "flows/__init__.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"print({name!r})\n")
    return tmp_path


def run(code: str, folder: Path, path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python code in a folder, with the library at `path`, a folder or a wheel."""
    command = [sys.executable, "-P", "-c", code, *arguments]
    environment = {"PYTHONPATH": str(path), "PATH": ""}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_brings_the_library_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
        (metadata,) = (opened.read(name) for name in names if name.endswith("/METADATA"))
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"stochca"}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "stochca").rglob("*.py")}
    assert modules <= names
    requirements = email.message_from_bytes(metadata).get_all("Requires-Dist") or []
    assert sorted(each.split(">")[0] for each in requirements if "extra ==" not in each) == ["timm", "torch"]


def test_the_command_of_the_wheel_says_where_it_works(wheel: Path, project: Path) -> None:
    ended = run(COMMAND, project, wheel, "check")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: the command stochca works on a clone of the project")
    assert ended.stderr.count("\n") == 1


def test_the_command_works_in_the_folder_of_a_clone(wheel: Path, tmp_path: Path) -> None:
    usage = run(COMMAND, ROOT, wheel, "--help").stdout
    assert "Usage:" in usage
    assert run(COMMAND, tmp_path, ROOT, "--help").stdout == usage  # installed from the clone: anywhere
    other = tmp_path / "another clone"  # its own code comes first
    for file in ("stochca/__init__.py", "stochca/_command.py", "pipeline/__init__.py", "pipeline/cli.py"):
        (other / file).parent.mkdir(parents=True, exist_ok=True)
        (other / file).touch()
    (other / "pipeline/cli.py").write_text("import stochca\ndef main(): print(stochca.__file__)\n")
    assert run(COMMAND, other, ROOT).stdout == f"{other / 'stochca/__init__.py'}\n"
    ended = run(COMMAND, tmp_path, ROOT, "check")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: params.yaml is missing; run from the project's folder")


@pytest.mark.parametrize("missing", ["typer", "yaml"])
def test_without_what_the_pipeline_needs_the_command_says_how_to_get_it(missing: str, tmp_path: Path) -> None:
    hidden = f"import sys; sys.modules[{missing!r}] = None; {COMMAND}"
    ended = run(hidden, tmp_path, ROOT, "check")
    assert ended.returncode == 2
    assert ended.stderr == (
        f"error: {missing} is not installed, which the command needs; run `pip install -e '.[pipeline]'` in "
        f"{ROOT}\n"
    )
