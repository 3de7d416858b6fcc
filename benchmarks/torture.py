"""Kill the stages (SIGKILL) again and again, at any moment, and see that they end as if nothing had been.

python -m benchmarks.torture [--kills 100] [--seed 0]

Every stage of a tiny task runs once undisturbed. Then each in turn is started, killed and started again until
it comes to its end, and what it leaves must equal the undisturbed run's, byte for byte: weights, numbers (but
times and memory), tables. Half of the kills come at a random moment; the others wait from such a moment for
the next file that is being written, and meet that. Ends with 1 as soon as anything differs.
"""

import csv
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measuring import options, seconds_of
from tests.e2e.workspace import SLOWER, Workspace

MEASURED = {
    "train_seconds",
    "images_per_second",
    "peak_memory_mb",
    "mlflow_run_id",
    "mlflow_run_ids",
    *("seconds", "finished_at", "node"),  # of a trial
}  # differ from run to run
UNFINISHED = ("work/*/.*.tmp", *(f"{name}/.*.partial" for name in ("data", "models", "results", "reports")))
METHODS: dict[str, dict[str, Any]] = {
    "stochca": {"attention": {"name": "stochca", "prob": 0.3}, "average": "swad"},
    "lp_ft": {"phases": "lp_ft", "training": {"head_lr_scale": 1}},
    "ema": {"attention": {"name": "stochca", "prob": 0.3}, "average": {"name": "ema", "decay": 0.9}},
    "bf16": {"attention": {"name": "stochca", "prob": 0.3}, "training": {"precision": "bf16"}},
    "compiled": {"attention": {"name": "stochca", "prob": 0.3}, "training": {"compile": True}},
    "miro": {"penalties": ["miro"]},
    "lora": {"adapter": {"name": "lora", "targets": ["qkv"]}, "training": {"lr": 1.0e-3, "head_lr_scale": 1}},
}


@dataclass
class Stage:
    """A command, what it leaves, what it left undisturbed, and how often it was killed."""

    name: str
    command: tuple[str, ...]
    leaves: tuple[str, ...]
    seconds: float = 0.0
    expected: dict[str, str] = field(default_factory=dict)
    kills: int = 0
    while_writing: int = 0  # of them

    def __str__(self) -> str:
        return f"{self.name}: {self.kills} kills, {self.while_writing} of them while a file was being written"

    def left(self, folder: Path) -> dict[str, str]:
        """A digest of every file."""
        places = [place for name in self.leaves for place in (folder / name, *(folder / name).rglob("*"))]
        return {str(file.relative_to(folder)): _digest(file) for file in places if file.is_file()}

    def clear(self, folder: Path) -> None:
        """As `dvc repro` does before it runs a stage."""
        for name in self.leaves:
            shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink(
                missing_ok=True
            )


def stages(methods: Sequence[str], search: bool) -> list[Stage]:
    def stage(name: str, *leaves: str) -> Stage:
        module, *arguments = name.split()
        return Stage(name, (sys.executable, "-m", f"pipeline.{module}", *arguments), leaves)

    runs = [f"{method}-all-0" for method in methods]
    return [
        stage("backbone", "data/backbone"),
        stage("prepare", "data/prepared"),
        *([stage("tune", "reports/tune/best.yaml", "reports/tune/trials.csv")] if search else []),
        *(
            stage(f"train {method} all 0", f"models/{run}", f"results/{run}", f"metrics/{run}.json")
            for method, run in zip(methods, runs, strict=True)
        ),
        stage("compare", "reports/comparison.json", "reports/table.csv"),
    ]


def torture(
    folder: Path, kills: int, seed: int, methods: Sequence[str] = tuple(METHODS), search: bool = True
) -> list[Stage]:
    """Kill `kills` times in all; returns the stages, which say how often each was.

    `stochca` has to be among the methods; `search`: the stage tune is among the stages.

    Raises:
        SystemExit: a stage failed, or left something else than undisturbed.
    """
    workspace = Workspace(folder, SLOWER)
    workspace.edit_params(partial(_set, methods))
    todo = stages(methods, search)
    for stage in todo:
        stage.seconds = seconds_of(partial(workspace.run, *stage.command))
        stage.expected = stage.left(folder)
        print(f"{stage.name}: {stage.seconds:.1f} s undisturbed, {len(stage.expected)} files", flush=True)
        if not stage.expected:
            sys.exit(f"error: {stage.name} left nothing")
    draw = random.Random(seed)
    so_far = 0
    while so_far < kills:
        for stage in todo:
            if so_far == kills:
                break
            stage.clear(folder)
            while so_far < kills and _killed(workspace, stage, draw):
                so_far += 1
            workspace.run(*stage.command)  # to its end; nothing to do where it came to it
            _compare(stage, folder)
            print(f"{stage}; equal; {so_far} in all", flush=True)
    return todo


def _set(methods: Sequence[str], raw: dict[str, Any]) -> None:
    raw["training"].update(steps=8, evaluations=4, checkpoints=8)
    raw["tune"].update(grace=0.5, concurrent=1, training={"precision": "fp32"})
    raw["methods"] = {name: METHODS[name] for name in methods}
    raw["protocol"].update(baseline=[name for name in methods if name != "stochca"], combined=[], seeds=[0])
    raw["compare"].update(reference="stochca", analysed=["stochca"])


def _killed(workspace: Workspace, stage: Stage, draw: random.Random) -> bool:
    """Whether it could be killed before it came to its end; notes it in the stage."""
    process = workspace.start(*stage.command)
    started = time.time()
    due = started + draw.uniform(0, stage.seconds)
    wants_write = draw.random() < 0.5
    while process.poll() is None:
        writes = _is_writing(workspace.folder, since=started)
        if time.time() >= due and (writes or not wants_write):
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            stage.kills, stage.while_writing = stage.kills + 1, stage.while_writing + writes
            return True
        time.sleep(0.001)
    output = process.communicate()[0]
    if process.returncode:
        sys.exit(f"error: {stage.name} failed after a kill:\n{output}")
    return False


def _is_writing(folder: Path, since: float) -> bool:
    """Whether there is something under a temporary name that no earlier kill has left."""
    for place in UNFINISHED:
        for path in folder.glob(place):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime >= since:
                    return True
    return False


def _compare(stage: Stage, folder: Path) -> None:
    different = sorted({name for name, _ in stage.left(folder).items() ^ stage.expected.items()})
    if different:
        sys.exit(f"error: {stage.name} left something else after kills: {', '.join(different)}")
    for unfinished in folder.rglob("*.partial"):
        sys.exit(f"error: {stage.name} left {unfinished.relative_to(folder)} behind")


def _digest(file: Path) -> str:
    """Of the content, without what is measured."""
    content = file.read_bytes()
    if file.suffix == ".json":
        content = json.dumps(json.loads(content, object_hook=_without_measured)).encode()
    elif file.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(content.decode()))
        content = json.dumps([*map(_without_measured, rows)]).encode()
    return hashlib.sha256(content).hexdigest()


def _without_measured(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in MEASURED}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--kills", type=int, default=100, help="how often in all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tortured = torture(Path(folder, "workspace"), arguments.kills, arguments.seed)
    for stage in tortured:
        print(f"{stage}; the same in the end")


if __name__ == "__main__":
    main()
