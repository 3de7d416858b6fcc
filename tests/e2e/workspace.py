"""A small copy of the project in a folder of its own, with a tiny task, driven as its users drive it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

import stochca  # noqa: F401 - lets timm be imported beside a torch without its torchvision
from pipeline.runtime.exclusive import in_turn
from tests.imports import ROOT

COPIED = (
    "stochca",
    "pipeline",
    "flows",
    "extensions",
    "dvc.yaml",
    "params.yaml",
    "pyproject.toml",
    ".dvcignore",
    ".gitignore",
)
CLASSES = ("red", "green", "blue")
SLOWER = "vit_tiny_patch16_224"


class Workspace:
    """A folder with the project's code, its stages, and a task that trains in seconds.

    With the backbone `SLOWER`, in some more, for what has to happen while a model trains.
    """

    def __init__(self, folder: Path, backbone: str = "test_vit") -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name)
            else:
                shutil.copy(source, folder / name)
        (folder / ".dvc").mkdir()
        shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc")
        shutil.copy(ROOT / ".dvc" / ".gitignore", folder / ".dvc")
        shutil.copytree(ROOT / ".dvc" / "plots", folder / ".dvc" / "plots")
        make_images(folder / "photos")
        make_weights(folder / "weights.safetensors", backbone)
        self.edit_params(make_tiny)
        self.edit_params(lambda raw: raw["backbone"].update(name=backbone))
        self.run("git", "init", "--quiet")
        self.commit()

    @classmethod
    def prepared(cls, folder: Path, backbone: str = "test_vit") -> "Workspace":
        """One whose stages `backbone` and `prepare` have run, and whose MLflow has its database.

        It is made once in a run of pytest, by the first of its processes, in the folder of them all.
        """
        shared = next((one for one in folder.parents if one.name.startswith("pytest-")), folder.parent)
        made = shared / f"prepared-{backbone}"
        with in_turn(shared):
            if not made.exists():
                _prepare(cls(shared / f"{made.name}.new", backbone)).folder.rename(made)
        return cls.there(made).copied_to(folder)

    @classmethod
    def there(cls, folder: Path) -> "Workspace":
        """One that is in `folder` already, such as a clone."""
        workspace = cls.__new__(cls)
        workspace.folder = folder
        return workspace

    def copied_to(self, folder: Path) -> "Workspace":
        shutil.copytree(self.folder, folder, symlinks=True)
        return Workspace.there(folder)

    def checkpoints(self, run: str) -> list[Path]:
        """Those of a training that is under way or was interrupted."""
        return list(self.folder.glob(f"work/runs/{run}-*/checkpoint.safetensors"))

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run(
            "git", "-c", "user.name=tests", "-c", "user.email=tests@example.invalid",
            "commit", "--quiet", "--allow-empty", "--message", "a state",
        )  # fmt: skip

    def edit_params(self, edit: Callable[[dict[str, Any]], Any]) -> None:
        path = self.folder / "params.yaml"
        raw = yaml.safe_load(path.read_text())
        edit(raw)
        path.write_text(yaml.safe_dump(raw, sort_keys=False))

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str, expect: int = 0) -> str:
        """Run a command to its end; returns what it printed."""
        process = self.start(*command)
        try:
            output = process.communicate(timeout=600)[0]
        finally:
            if process.poll() is None:  # it and what it started must not outlive the test
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == expect, f"{' '.join(command)} ended with {process.returncode}:\n{output}"
        return output

    def kill_when(self, condition: Callable[[], bool], *command: str, number: int = signal.SIGKILL) -> str:
        """Start a command and end its whole process group as soon as `condition` holds."""
        process = self.start(*command)
        while not condition():
            assert process.poll() is None, f"ended before it could be killed:\n{process.communicate()[0]}"
            time.sleep(0.02)
        os.killpg(process.pid, number)
        return process.communicate(timeout=120)[0]


def _prepare(workspace: Workspace) -> Workspace:
    workspace.run("dvc", "repro", "backbone", "prepare")
    uri = f"sqlite:///{workspace.folder}/mlflow.db"
    workspace.run("python", "-c", f"import mlflow; mlflow.MlflowClient({uri!r}).search_experiments()")
    workspace.commit()
    return workspace


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {
        **os.environ,
        "PATH": path,
        "DVC_NO_ANALYTICS": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        "RAY_worker_niceness": "0",  # Ray's 15 lets its workers wait for the tests beside them
    }


def make_tiny(raw: dict[str, Any]) -> None:
    """A task of three colours, a tiny transformer with random weights, three methods."""
    raw["image_size"] = 32
    raw["backbone"].update(weights="file:weights.safetensors", sha256=None)
    raw["dataset"].update(name="image_folder", root="photos", domains=None, validation=0.15, test=0.25)
    budget = {"epochs": None, "steps": 12, "warmup": 2 / 12, "evaluations": 6, "checkpoints": 4}
    raw["training"].update(budget, batch_size=8, precision="fp32")
    raw["tune"].update(
        lr=None,
        trials=3,
        seeds=[0, 1],
        grace=0.25,
        reduction=2,
        training={"evaluations": 4, "precision": "fp32"},
    )
    raw["protocol"].update(baseline=["finetune"], combined=["stochca+swad"], seeds=[0])
    raw["methods"]["stochca+swad"].pop("training")  # its many evaluations
    raw["compare"].update(analysed=["finetune"])
    raw["tracking"].update(log_model=False)


def make_images(root: Path, per_class: int = 20) -> None:
    random = np.random.default_rng(0)
    for channel, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = random.normal(90, 50, (32, 32, 3))
            pixels[..., channel] += 40
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{i:02}.png")


def make_weights(path: Path, backbone: str) -> None:
    import timm
    import torch
    from safetensors.torch import save_file

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model(backbone, num_classes=0)
    save_file(model.state_dict(), path)
