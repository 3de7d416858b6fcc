"""What `compare` tells MLflow: a run per method with mean and spread over seeds, and one with the page."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pipeline.config.params import Params
from pipeline.report.comparison import Standing
from pipeline.runtime.paths import RUNS
from pipeline.tracking.run_folder import RunFolder


def write_groups(
    params: Params, rows: Sequence[Standing], averages: Sequence[Standing], report_files: Sequence[Path]
) -> list[Path]:
    """The folders of one run per method and target, over the runs of its seeds, and of one with the page.

    Of several targets there is one run more per method, with the averages over them. MLflow finds them again
    by their tag, so that comparing anew updates them.
    """
    runs = []
    for row in rows:
        seeds = ",".join(str(run.seed) for run in row.runs)
        run = _begin(params, f"{row.method}-{row.target}", {"seeds": seeds, "verdict": row.verdict})
        run.add_params({"method": row.method, "target": row.target})
        run.log(_numbers(row, "std"))
        run.adopt(row.mlflow_run_ids)
        runs.append(run)
    for average in averages:
        tags = {"targets": ",".join(average.targets), "verdict": average.verdict}
        run = _begin(params, f"{average.method}-over-targets", tags)
        run.add_params({"method": average.method})
        run.log(_numbers(average, "standard_error"))
        runs.append(run)
    page = _begin(params, "comparison", {"reference": params.compare.reference})
    for path in report_files:
        shutil.copy(path, page.artifacts)
    for run in (*runs, page):
        run.end("FINISHED")
    return [run.folder for run in (*runs, page)]


def _begin(params: Params, group: str, tags: Mapping[str, str]) -> RunFolder:
    folder = RUNS / f"compare-{group}"
    return RunFolder.begin(folder, params.tracking.experiment, group, tags, replaces={"group": group})


def _numbers(standing: Standing, error: Literal["std", "standard_error"]) -> dict[str, float]:
    """Every metric with its error, and the difference to the reference."""
    numbers = {f"difference_to_{standing.reference}": standing.difference.mean}
    for name, spread in standing.metrics.items():
        numbers[name] = spread.mean
        if (value := getattr(spread, error)) is not None:
            numbers[f"{name}_{error}"] = value
    return numbers
