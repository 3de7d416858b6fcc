"""The language example as its users run it: DVC, MLflow, a kill, on a tiny model."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from examples.language.paths import HERE, MODELS, PARAMS_FILE, REPORTS, RESULTS
from tests.e2e.workspace import environment
from tests.examples.language.workspace import make_workspace, params
from tests.imports import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
REPRO = ("dvc", "repro", f"{HERE}/dvc.yaml:compare")


def start(folder: Path, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**environment(), "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(folder: Path, *command: str) -> str:
    process = start(folder, *command)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    return output


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    raw = params()
    raw["training"].update(steps=40, checkpoints=9)
    raw["compare"].update(methods=["toast", "stochca"], reference="toast", seeds=[0])
    for name in ("stochca", "pipeline", "extensions", "examples/language"):
        ignored = shutil.ignore_patterns("data", "models", "results", "reports", "__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "examples/__init__.py", folder / "examples")
    for name in (".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    make_workspace(folder, raw)
    run(folder, "git", "init", "--quiet")
    run(folder, sys.executable, "-m", "dvc", "init", "--quiet")
    return folder


def weights(folder: Path, run_name: str) -> dict[str, torch.Tensor]:
    (file,) = (folder / MODELS / run_name).glob("*.safetensors")
    return load_file(file)


def test_killed_it_ends_the_same_and_a_change_trains_one_method(project: Path) -> None:
    run(project, *REPRO)
    table = json.loads((project / REPORTS / "comparison.json").read_text())
    assert {row["method"] for row in table} == {"untuned", "toast", "stochca"}
    assert "up to date" in run(project, *REPRO)
    assert not list((project / "work").glob("runs/*/checkpoints"))

    expected = weights(project, "stochca-0")
    stage = f"{HERE}/dvc.yaml:train@stochca-0"
    process = start(project, "dvc", "repro", "--force", "--no-run-cache", "--single-item", stage)
    while not list(project.glob("work/runs/language-stochca-0-*/checkpoints/checkpoint-*/whole")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert not (project / RESULTS / "stochca-0").exists()

    raw = yaml.safe_load((project / PARAMS_FILE).read_text())
    raw["methods"]["toast"]["lr"] = 0.5
    (project / PARAMS_FILE).write_text(yaml.safe_dump(raw, sort_keys=False))
    output = run(project, *REPRO)
    assert "continues after step" in output
    found = weights(project, "stochca-0")
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    lines = output.splitlines()
    ran = {line.split("'")[1].split(":")[1] for line in lines if line.startswith("Running stage")}
    assert ran == {"train@stochca-0", "train@toast-0", "compare"}
