"""What one waits for beside the work itself: help, a `dvc repro` with nothing to do, the rest of a stage.

python -m benchmarks.startup [--runs 3]

In a workspace of its own with a tiny task, whose evaluation on the test images takes no time. Medians of
the runs.
"""

import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.measuring import options, print_head, print_row, seconds_of
from tests.e2e.workspace import Workspace

STAGE = "baseline@finetune-all-0"
IMPORTS = "import stochca, timm, torch._dynamo"  # the latter by its first optimizer


def beyond_training(workspace: Workspace, *command: str) -> float:
    """Seconds of a command that trains, without those of the training loop."""
    shutil.rmtree(workspace.folder / "work", ignore_errors=True)  # or it would go on from the one before
    taken = seconds_of(lambda: workspace.run(*command))
    metrics = json.loads((workspace.folder / "metrics" / "finetune-all-0.json").read_text())
    return taken - metrics["train_seconds"]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder, "workspace"))
        workspace.edit_params(lambda raw: raw["tracking"].update(log_model=True))
        workspace.run("dvc", "repro", STAGE)
        train = (sys.executable, "-m", "pipeline.train", "finetune", "all", "0")
        dvc = ("dvc", "repro", "--force", "--single-item", STAGE)

        def whole(*command: str) -> Callable[[], float]:
            return lambda: seconds_of(lambda: workspace.run(*command))

        measured = {
            "stochca --help": whole("stochca", "--help"),
            "dvc repro with nothing to do": whole("dvc", "repro", STAGE),
            "imports alone that any training with timm waits for": whole(sys.executable, "-c", IMPORTS),
            "a training process beyond its training": lambda: beyond_training(workspace, *train),
            "the same as a stage of DVC": lambda: beyond_training(workspace, *dvc),
        }
        print_head("", "seconds")
        for name, measure in measured.items():
            print_row(name, f"{statistics.median(measure() for _ in range(arguments.runs)):.2f}")


if __name__ == "__main__":
    main()
