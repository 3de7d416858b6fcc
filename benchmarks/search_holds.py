"""Does it hold what `make tune` finds? The find of a search beside the best cell of the map.

    python -m benchmarks.map run               the map, which says what is best
    python -m benchmarks.search_holds run      a search on either set, and five trainings by what each found
    python -m benchmarks.search_holds report   the table

The search is that of params.yaml, with the map's images and budget: 15 % of the training images and 28
epochs. What it found trains as the map does, and is compared with that combination of probability and
learning rate in the map that has the best accuracy on the test images themselves, which no search may see.
"""

import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import yaml

from benchmarks.map import FOLDER, RESULTS, read_results, run
from benchmarks.mapping.grid import Cell, Grid, Results
from benchmarks.mapping.packed import SETS, PackedSet
from benchmarks.mapping.report import MEASURES
from benchmarks.measuring import options, print_head, print_row
from pipeline.report.intervals import estimate, judge
from pipeline.runtime.paths import BEST, CODE

SHARE, EPOCHS = 15, 28
SEARCHES = Path("work/search_holds")
FOUND = Path("benchmarks/measured/search_holds.jsonl")
CONFIDENCE = 0.95


def search(folder: Path, packed: PackedSet, name: str) -> Grid:
    """The search on a set, if it is not done yet; gives the trainings by what it found."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for split, part in {"train": f"train_{SHARE}", "val": "validation", "test": "test"}.items():
        images = [np.asarray(packed.parts[part][i][0]) for i in range(len(packed.parts[part]))]
        np.savez(
            folder / "images" / f"{split}.npz", images=np.stack(images), labels=packed.parts[part].labels
        )
    params = yaml.safe_load((CODE / "params.yaml").read_text())
    params["dataset"] |= {"name": "arrays", "root": "images", "domains": None}
    params["training"] |= {"epochs": EPOCHS, "steps": None}
    params["image_size"] = packed.preprocessing.image_size
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    if not (folder / BEST).exists():
        for stage in ("backbone", "prepare", "tune"):
            command = [sys.executable, "-m", f"pipeline.{stage}"]
            subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(CODE)}, check=True)
    found: dict[str, Any] = yaml.safe_load((folder / BEST).read_text())
    return Grid((name,), ((SHARE, EPOCHS),), ("none",), (found["prob"],), rates=(found["lr"],))


def best_of_map(results: Results, name: str, seeds: int) -> list[Cell]:
    """The trainings with all seeds, by probability and rate, whose mean test accuracy is best."""
    cells = [cell for cell in results if cell.place == (name, SHARE, EPOCHS) and cell.first_phase == "none"]
    by_setting: dict[tuple[Any, float], list[Cell]] = {}
    for cell in cells:
        by_setting.setdefault((cell.method, cell.lr), []).append(cell)
    whole = [each for each in by_setting.values() if len(each) == seeds]
    return max(whole, key=lambda each: fmean(results[cell]["test_accuracy"] for cell in each))


def report(mapped: Results, found: Results) -> None:
    """The table, for each set that was searched."""
    print_head(
        "", "found", "the map's best", *(f"{m.title}: found, best, difference" for m in MEASURES.values())
    )
    for name in sorted({cell.set for cell in found}):
        ours = sorted((cell for cell in found if cell.set == name), key=lambda cell: cell.seed)
        best = {cell.seed: cell for cell in best_of_map(mapped, name, len(ours))}
        row = [_setting(ours[0]), _setting(best[ours[0].seed])]
        for measure in MEASURES.values():
            one, other = (
                np.stack([measure.of(results[cell]) for cell in cells])
                for results, cells in ((found, ours), (mapped, [best[cell.seed] for cell in ours]))
            )
            (difference,) = judge([estimate([one - other])], CONFIDENCE, measure.limit)
            values = (one.mean(), other.mean(), difference.mean, difference.low, difference.high)
            said = [f"{value / measure.unit:.{measure.decimals}f}" for value in values]
            row.append("{}, {}, {} ({} to {})".format(*said))
        print_row(name, *row)


def _setting(cell: Cell) -> str:
    return f"p = {cell.prob:.2g}, lr {cell.lr:.2g}"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("what", choices=["run", "report"])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS])
    parser.add_argument("--packed", type=Path, default=FOLDER, help="the map's images and weights")
    parser.add_argument("--processes", type=int, default=1, help="models that train at a time")
    arguments = parser.parse_args()
    if arguments.what == "report":
        report(read_results(RESULTS), read_results(FOUND))
        return
    for name in arguments.sets:
        grid = search(SEARCHES / name, PackedSet.of(arguments.packed, name), name)
        run(arguments.packed, FOUND, grid, "cpu", arguments.processes, float("inf"))


if __name__ == "__main__":
    main()
