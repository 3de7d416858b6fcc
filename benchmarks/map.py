"""When does StochCA help? A grid of trainings, resumable after any kill, with a line of JSON for each.

    python -m benchmarks.map pack            two files with the images and the weights (needs the pipeline)
    python -m benchmarks.map run [--full]    the trainings that are missing (needs the library alone)
    python -m benchmarks.map report          heat maps and tables, of whatever is there

Share of the training images x epochs x probability x blocks x first phase x seeds, on OpenMoji and on the
solar cells. Every method trains at the best of three learning rates, chosen on validation with the first two
seeds.
"""

import argparse
import dataclasses
import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.mapping.grid import FULL, SMALL, Cell, Grid
from benchmarks.measuring import options

FOLDER = Path("work/map")
RESULTS = Path("benchmarks/measured/map.jsonl")


def read_results(path: Path) -> dict[Cell, dict[str, Any]]:
    """What every training came to; a last line that was cut off by a kill is left out."""
    fields = [field.name for field in dataclasses.fields(Cell)]
    return {Cell(**{name: record.pop(name) for name in fields}): record for record in records(path)}


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of JSON that are whole."""
    for line in path.read_text().splitlines(keepends=True) if path.exists() else []:
        if line.endswith("\n"):
            yield json.loads(line)


@contextmanager
def appended_to(path: Path) -> Iterator[Any]:
    """The file, behind its last whole line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        yield file


def run(folder: Path, results: Path, grid: Grid, device: str, processes: int, minutes: float) -> None:
    """Train what is missing, `processes` models at a time; nothing starts after so many minutes."""
    done = read_results(results)
    end = time.monotonic() + 60 * minutes
    running: dict[Future[dict[str, Any]], Cell] = {}
    with (
        appended_to(results) as file,
        ProcessPoolExecutor(processes, get_context("spawn"), _leave_interrupts_to_the_parent) as pool,
    ):
        while True:
            for cell in grid.open(done, running.values()):
                if len(running) == processes or time.monotonic() > end:
                    break
                running[pool.submit(_train, folder, cell, device)] = cell
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                cell, record = running.pop(future), future.result()
                done[cell] = record
                file.write(json.dumps(dataclasses.asdict(cell) | record).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
                came_to = f"{record['test_accuracy']:.3f}, {record['seconds']} s"
                print(f"{len(done)}: {_said(cell)}: {came_to}", flush=True)


def _train(folder: Path, cell: Cell, device: str) -> dict[str, Any]:
    from benchmarks.mapping.training import train

    return train(folder, cell, device)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _said(cell: Cell) -> str:
    first = "" if cell.first_phase == "none" else f"{cell.first_phase}, "
    place = f"{cell.set}, {cell.share} %, {cell.epochs} epochs"
    return f"{place}, {first}p {cell.prob:g} in {cell.blocks} blocks, lr {cell.lr:g}, seed {cell.seed}"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("what", choices=["pack", "run", "report"])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the two files")
    parser.add_argument("--results", type=Path, default=RESULTS, help="a line of JSON for each training")
    parser.add_argument("--full", action="store_true", help="the whole grid, for a GPU")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=1, help="models that train at a time")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which nothing starts")
    arguments: argparse.Namespace = parser.parse_args()
    if arguments.what == "pack":
        from benchmarks.mapping.packed import pack

        pack(arguments.folder)
    elif arguments.what == "run":
        grid = FULL if arguments.full else SMALL
        run(
            arguments.folder,
            arguments.results,
            grid,
            arguments.device,
            arguments.processes,
            arguments.minutes,
        )
    else:
        from benchmarks.mapping.report import report

        report(read_results(arguments.results))


if __name__ == "__main__":
    main()
