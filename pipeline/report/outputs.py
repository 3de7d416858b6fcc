"""Writes the comparison for other programs and for people: JSON, CSV, Markdown; for DVC; for MLflow."""

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd

from pipeline.config.params import Params
from pipeline.report import sentences
from pipeline.report.benchmark_table import BenchmarkTable, write_csv
from pipeline.report.comparison import Standing
from pipeline.report.comparison_json import Comparison
from pipeline.report.documents import TEMPLATES
from pipeline.report.terms import Terms
from pipeline.runtime.files import write_json, write_text
from pipeline.runtime.paths import RUNS
from pipeline.tracking.run_folder import RunFolder

SUMMARY_METRICS = ("test_macro_f1", "test_calibration_error", "train_seconds", "images_per_second")


def write_comparison(folder: Path, results: Comparison, text: str) -> list[Path]:
    """comparison.json, comparison.csv with one row per method and target, and comparison.md with `text`."""
    json_path, csv_path, markdown_path = (folder / f"comparison.{end}" for end in ("json", "csv", "md"))
    write_json(json_path, results.model_dump(mode="json"))
    rows = [{**row, "mlflow_run_ids": " ".join(row["mlflow_run_ids"])} for row in results.rows]
    write_csv(csv_path, pd.DataFrame(rows))
    write_text(markdown_path, text)
    return [json_path, csv_path, markdown_path]


def write_summary(path: Path, rows: Sequence[Standing], averages: Sequence[Standing]) -> None:
    """Numbers alone, by method (or method/target and method/average), as `dvc metrics` reads them."""
    several = len({row.target for row in rows}) > 1
    summary = {
        f"{row.method}/{row.target}" if several else row.method: {
            f"test_{row.metric.name}": row.value,
            **row.difference_numbers,
            **{name: row.metrics[name].mean for name in SUMMARY_METRICS},
            f"test_{row.metric.name}_std": row.tested.std,
        }
        for row in rows
    }
    summary |= {
        f"{average.method}/average": {
            **{name: spread.mean for name, spread in average.metrics.items()},
            **average.difference_numbers,
            f"test_{average.metric.name}_standard_error": average.tested.standard_error,
        }
        for average in averages
    }
    known = {
        place: {name: number for name, number in numbers.items() if number is not None}
        for place, numbers in summary.items()
    }
    write_json(path, known)


def write_plots(folder: Path, rows: Sequence[Standing]) -> None:
    """For `dvc plots`: curves.csv, accuracy_vs_cost.csv, and confusion.csv of the best's first seed."""
    curves = pd.concat(
        run.evaluations.assign(method=run.method, target=run.target, seed=run.seed)
        for row in rows
        for run in row.runs
    )
    columns = ["validation_accuracy", "validation_loss", "validation_selection", "train_loss"]
    write_csv(folder / "curves.csv", curves[["method", "target", "seed", "step", *columns]])
    costs = [
        (row.method, row.target, row.metrics["train_seconds"].mean, row.metrics["test_accuracy"].mean)
        for row in rows
    ]
    cost = pd.DataFrame(costs, columns=["method", "target", "train_seconds", "test_accuracy"])
    write_csv(folder / "accuracy_vs_cost.csv", cost)
    best = rows[0].runs[0]
    named = best.predictions[["label", "prediction"]].map(lambda index: best.classes[index])
    write_csv(folder / "confusion.csv", named.set_axis(["actual", "predicted"], axis=1))


def markdown(
    rows: Sequence[Standing], averages: Sequence[Standing], table: BenchmarkTable, terms: Terms
) -> str:
    """What came out in words, and the table, per target; of several targets, first over all of them."""
    targets = dict.fromkeys(row.target for row in rows)
    return TEMPLATES.get_template("comparison.md").render(
        words=sentences,
        terms=terms,
        averages=averages,
        table=table,
        sections=[[row for row in rows if row.target == target] for target in targets],
    )


def write_mlflow_runs(
    params: Params, rows: Sequence[Standing], averages: Sequence[Standing], report_files: Sequence[Path]
) -> list[Path]:
    """The folders of one run per method and target, over the runs of its seeds, and of one with the page.

    Of several targets there is one run more per method, with the averages over them. They take the place of
    those that have the same tags, so that comparing anew leaves no number of before; those of other images
    and of other users, which may be another project's, stay.
    """
    images = rows[0].runs[0].description["dataset"]["fingerprint"]
    begin = partial(_begin, params.tracking.experiment, images)
    runs = []
    for row in rows:
        seeds = ",".join(str(run.seed) for run in row.runs)
        run = begin(f"{row.method}-{row.target}", {"seeds": seeds, "verdict": row.verdict})
        run.add_params({"method": row.method, "target": row.target})
        run.log(_numbers(row, "std"))
        run.adopt(row.mlflow_run_ids)
        runs.append(run)
    for average in averages:
        tags = {"targets": ",".join(average.targets), "verdict": average.verdict}
        run = begin(f"{average.method}-over-targets", tags)
        run.add_params({"method": average.method})
        run.log(_numbers(average, "standard_error"))
        runs.append(run)
    page = begin("comparison", {"reference": params.compare.reference})
    for path in report_files:
        shutil.copy(path, page.artifacts)
    for run in (*runs, page):
        run.end("FINISHED")
    return [run.folder for run in (*runs, page)]


def _begin(experiment: str, images: str, group: str, tags: Mapping[str, str]) -> RunFolder:
    folder = RUNS / f"compare-{group}"
    replaces = {"group": group, "dataset_fingerprint": images}
    return RunFolder.begin(folder, experiment, group, tags, replaces=replaces)


def _numbers(standing: Standing, error: Literal["std", "standard_error"]) -> dict[str, float]:
    """Every metric with its error, and the difference to the reference."""
    numbers = {f"difference_to_{standing.reference}": standing.difference.mean}
    for name, spread in standing.metrics.items():
        numbers[name] = spread.mean
        if (value := getattr(spread, error)) is not None:
            numbers[f"{name}_{error}"] = value
    return numbers
