"""The targets of the Makefile that decide something; what they would start is replaced."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.imports import ROOT


def make(folder: Path, replaced: str, *arguments: str, **environment: str) -> list[str]:
    """What `make` prints, with a program in place of `replaced` that prints its arguments."""
    program = folder / ".venv" / "bin" / replaced
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\necho {replaced} "$@" $PYTHONDONTWRITEBYTECODE\n')
    program.chmod(0o755)
    for name in ("constraints.txt", "pyproject.toml", ".venv/.ready"):
        (folder / name).touch()
    kept = {key: value for key, value in os.environ.items() if key not in ("MLFLOW_TRACKING_URI", "PORT")}
    done = subprocess.run(
        ["make", "--no-print-directory", "--file", ROOT / "Makefile", *arguments],
        cwd=folder,
        env={**kept, "PYTHONDONTWRITEBYTECODE": "1", **environment},  # which is for the image of a container
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def make_ui(folder: Path, **environment: str) -> list[str]:
    return make(folder, "mlflow", "ui", **environment)


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["use", "PRESET=cub/refit"], "stochca use cub/refit"),
        (["use"], "stochca use"),
        (["presets"], "stochca presets"),
        (["new", "FOLDER=my photos"], "stochca new my photos"),
        (["new", "FOLDER=photos", "FORCE=1"], "stochca new photos --force"),
        (["new"], "stochca new"),
    ],
)
def test_presets_and_folders_are_used_by_name(arguments: list[str], command: str, tmp_path: Path) -> None:
    assert make(tmp_path, "stochca", *arguments, PRESET="") == [command]


def test_ui_says_where_the_runs_are(tmp_path: Path) -> None:
    first, second = make_ui(tmp_path, PORT="5555")
    assert first == "Runs: http://127.0.0.1:5555/#/experiments"
    database = f"sqlite:///{tmp_path}/mlflow.db"
    assert second == f"mlflow ui --backend-store-uri {database} --host 127.0.0.1 --port 5555"


def test_ui_of_another_database(tmp_path: Path) -> None:
    _, second = make_ui(tmp_path, MLFLOW_TRACKING_URI="sqlite:///other.db")
    assert second == "mlflow ui --backend-store-uri sqlite:///other.db --host 127.0.0.1 --port 5000"


@pytest.mark.parametrize("uri", ["http://example.invalid:5000", "https://example.invalid"])
def test_ui_of_a_server_is_its_address(uri: str, tmp_path: Path) -> None:
    assert make_ui(tmp_path, MLFLOW_TRACKING_URI=uri) == [f"Runs: {uri}"]


def test_clean_keeps_what_cannot_be_made_again(tmp_path: Path) -> None:
    kept = ["work/runs/waits/run.json", "work/stochca-all-0.lock", "models/a/model.safetensors"]
    gone = [
        "work/runs/waits/checkpoint.safetensors",
        "work/runs/waits/previous.safetensors",
        "work/runs/waits/decides.json",
        "work/runs/waits/evaluated/6.safetensors",
        "work/runs/waits/checkpoints/checkpoint-6/whole",
        "work/runs/sent/run.json",
        "work/runs/sent/published",
        "work/file",
        ".mypy_cache/x",
    ]
    for name in (*kept, *gone):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    make(tmp_path, "nothing", "clean")
    assert [name for name in kept if not (tmp_path / name).exists()] == []
    assert [name for name in gone if (tmp_path / name).exists()] == []
    make(tmp_path / "new", "nothing", "clean")  # no folder work/ yet
