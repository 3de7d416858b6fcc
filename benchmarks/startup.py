"""What one waits for beside the work itself: help, a `dvc repro` with nothing to do, the rest of a stage.

python -m benchmarks.startup [--runs 3]

In a workspace of its own with a tiny task, whose look at the test images takes no time. Medians of the runs.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.e2e.workspace import Workspace

STAGE = "baseline@finetune-all-0"
IMPORTS = "import stochca, timm, torch._dynamo"  # the latter by its first optimizer


def seconds_of(workspace: Workspace, *command: str) -> float:
    started = time.perf_counter()
    workspace.run(*command)
    return time.perf_counter() - started


def beyond_training(workspace: Workspace, *command: str) -> float:
    """Seconds of a command that trains, without those of the training loop."""
    taken = seconds_of(workspace, *command)
    metrics = json.loads((workspace.folder / "metrics" / "finetune-all-0.json").read_text())
    return taken - metrics["train_seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder, "workspace"))
        workspace.edit_params(lambda raw: raw["tracking"].update(log_model=True))
        workspace.run("dvc", "repro", STAGE)
        train = (sys.executable, "-m", "pipeline.train", "finetune", "all", "0")
        measured: dict[str, Callable[[], float]] = {
            "stochca --help": lambda: seconds_of(workspace, "stochca", "--help"),
            "dvc repro with nothing to do": lambda: seconds_of(workspace, "dvc", "repro", STAGE),
            "imports alone that any training with timm waits for": lambda: seconds_of(
                workspace, sys.executable, "-c", IMPORTS
            ),
            "a training process beyond its training": lambda: beyond_training(workspace, *train),
            "the same as a stage of DVC": lambda: beyond_training(
                workspace, "dvc", "repro", "--force", "--single-item", STAGE
            ),
        }
        print("| | seconds |\n| --- | --: |")
        for name, measure in measured.items():
            print(
                f"| {name} | {statistics.median(measure() for _ in range(arguments.runs)):.2f} |", flush=True
            )


if __name__ == "__main__":
    main()
