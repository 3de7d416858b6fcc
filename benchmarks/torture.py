"""Kill the stages (SIGKILL) again and again, at any moment, and see that they end as if nothing had been.

python -m benchmarks.torture [--kills 100] [--seed 0]

Every stage of a tiny task runs once undisturbed. Then each in turn is started, killed after a random time and
started again until it comes to its end, and what it leaves must equal the undisturbed run's, byte for byte:
weights, numbers (but times and memory), tables. Training writes a checkpoint after every step here, so that
many kills meet one that is being written. Ends with 1 as soon as anything differs.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.e2e.workspace import Workspace

MEASURED = {
    "train_seconds",
    "images_per_second",
    "peak_memory_mb",
    "mlflow_run_id",
    "mlflow_run_ids",
}  # differ from run to run
METHODS: dict[str, dict[str, Any]] = {
    "stochca": {"attention": {"name": "stochca", "prob": 0.3}, "average": "swad"},
    "lp_ft": {"phases": "lp_ft", "training": {"head_lr_scale": 1}},
    "ema": {"attention": {"name": "stochca", "prob": 0.3}, "average": {"name": "ema", "decay": 0.9}},
    "bf16": {"attention": {"name": "stochca", "prob": 0.3}, "training": {"precision": "bf16"}},
    "miro": {"penalties": ["miro"]},
    "lora": {"train": {"name": "lora", "targets": ["qkv"]}, "training": {"lr": 1.0e-3, "head_lr_scale": 1}},
}


@dataclass
class Stage:
    """A command, what it leaves, and what it left undisturbed."""

    name: str
    command: tuple[str, ...]
    leaves: tuple[str, ...]
    seconds: float = 0.0
    expected: dict[str, str] = field(default_factory=dict)

    def left(self, folder: Path) -> dict[str, str]:
        """A digest of every file."""
        files = [file for name in self.leaves for file in _files(folder / name)]
        return {str(file.relative_to(folder)): _digest(file) for file in files}

    def clear(self, folder: Path) -> None:
        """As `dvc repro` does before it runs a stage."""
        for name in self.leaves:
            shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink(
                missing_ok=True
            )


def stages(methods: Sequence[str]) -> list[Stage]:
    def training(method: str) -> Stage:
        run = f"{method}-all-0"
        leaves = (f"models/{run}", f"results/{run}", f"metrics/{run}.json")
        return Stage(f"train {method}", (*_module("train"), method, "all", "0"), leaves)

    return [
        Stage("backbone", _module("backbone"), ("data/backbone",)),
        Stage("prepare", _module("prepare"), ("data/prepared",)),
        *(training(method) for method in methods),
        Stage("compare", _module("compare"), ("reports/comparison.json", "reports/table.csv")),
    ]


def torture(folder: Path, kills: int, seed: int, methods: Sequence[str] = tuple(METHODS)) -> Counter[str]:
    """Kill `kills` times in all; returns how often each stage was. `stochca` has to be among the methods.

    Raises:
        SystemExit: a stage failed, or left something else than undisturbed.
    """
    workspace = Workspace(folder)
    workspace.edit_params(partial(_set, methods))
    todo = stages(methods)
    for stage in todo:
        started = time.perf_counter()
        output = workspace.run(*stage.command)
        stage.seconds = time.perf_counter() - started
        stage.expected = stage.left(folder)
        print(f"{stage.name}: {stage.seconds:.1f} s undisturbed, {len(stage.expected)} files", flush=True)
        if not stage.expected:
            sys.exit(f"error: {stage.name} left nothing:\n{output}")
    draw = random.Random(seed)
    killed: Counter[str] = Counter()
    while killed.total() < kills:
        for stage in todo:
            stage.clear(folder)
            while killed.total() < kills and _killed(workspace, stage, draw.uniform(0, stage.seconds)):
                killed[stage.name] += 1
            workspace.run(*stage.command)  # to its end; nothing to do where it came to it
            _compare(stage, folder)
            print(
                f"{stage.name}: equal after {killed[stage.name]} kills; {killed.total()} in all", flush=True
            )
    return killed


def _set(methods: Sequence[str], raw: dict[str, Any]) -> None:
    raw["training"].update(steps=8, eval_every=2, checkpoint_every=1)
    raw["methods"] = {name: METHODS[name] for name in methods}
    raw["protocol"].update(baseline=[name for name in methods if name != "stochca"], combined=[], seeds=[0])
    raw["compare"].update(reference="stochca", analysed=["stochca"])


def _killed(workspace: Workspace, stage: Stage, after: float) -> bool:
    """Whether it had to be killed; otherwise it came to its end before."""
    process = workspace.start(*stage.command)
    try:
        output = process.communicate(timeout=after)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    if process.returncode:
        sys.exit(f"error: {stage.name} failed after a kill:\n{output}")
    return False


def _compare(stage: Stage, folder: Path) -> None:
    found = stage.left(folder)
    if found != stage.expected:
        different = sorted(
            name
            for name in found.keys() | stage.expected.keys()
            if found.get(name) != stage.expected.get(name)
        )
        sys.exit(f"error: {stage.name} left something else after kills: {', '.join(different)}")
    for unfinished in folder.rglob("*.partial"):
        sys.exit(f"error: {stage.name} left {unfinished.relative_to(folder)} behind")


def _module(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"pipeline.{name}")


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _digest(file: Path) -> str:
    content = file.read_bytes()
    if file.suffix == ".json":
        content = json.dumps(_without_measured(json.loads(content))).encode()
    return hashlib.sha256(content).hexdigest()


def _without_measured(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_measured(item) for key, item in value.items() if key not in MEASURED}
    if isinstance(value, list):
        return [_without_measured(item) for item in value]
    return value


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="how often in all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        killed = torture(Path(folder, "workspace"), arguments.kills, arguments.seed)
    for stage, number in killed.items():
        print(f"{stage:20} killed {number:3} times, the same in the end")


if __name__ == "__main__":
    main()
