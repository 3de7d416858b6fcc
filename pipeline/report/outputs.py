"""Writes the comparison as files for other programs and for people: JSON, CSV, Markdown, and DVC's."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline.report.benchmark_table import BenchmarkTable, as_markdown, markdown_rows, write_csv
from pipeline.report.comparison import Standing
from pipeline.report.comparison_json import Comparison
from pipeline.report.sentences import details, duration, headline, percent, points
from pipeline.report.terms import Terms
from pipeline.runtime.files import write_json, write_text

SUMMARY_METRICS = ("test_macro_f1", "test_calibration_error", "train_seconds", "images_per_second")
COLUMNS = (
    *("", "method", "target", "test accuracy", "difference", "verdict", "macro-F1", "calibration error"),
    *("trained for", "images/s", "peak memory (MB)", "trainable parameters", "MLflow runs"),
)
ALIGNMENT = ("--:", "---", "---", "--:", "--:", "---", "--:", "--:", "--:", "--:", "--:", "--:", "---")


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
            "test_accuracy": row.accuracy,
            **row.difference_numbers,
            **{name: row.metrics[name].mean for name in SUMMARY_METRICS},
            "test_accuracy_std": row.metrics["test_accuracy"].std,
        }
        for row in rows
    }
    summary |= {
        f"{average.method}/average": {
            **{name: spread.mean for name, spread in average.metrics.items()},
            **average.difference_numbers,
            "test_accuracy_standard_error": average.metrics["test_accuracy"].standard_error,
        }
        for average in averages
    }
    known = {
        place: {name: number for name, number in numbers.items() if number is not None}
        for place, numbers in summary.items()
    }
    write_json(path, known)


def write_plots(folder: Path, rows: Sequence[Standing]) -> list[Path]:
    """For `dvc plots`: curves.csv, accuracy_vs_cost.csv, and confusion.csv of the best's first seed."""
    curves, cost, confusion = (folder / f"{name}.csv" for name in ("curves", "accuracy_vs_cost", "confusion"))
    write_csv(
        curves,
        pd.concat(
            run.evaluations.assign(method=row.method, target=row.target, seed=run.seed)
            for row in rows
            for run in row.runs
        )[["method", "target", "seed", "step", "validation_accuracy", "validation_loss", "train_loss"]],
    )
    costs = [(row.method, row.target, row.metrics["train_seconds"].mean, row.accuracy) for row in rows]
    write_csv(cost, pd.DataFrame(costs, columns=["method", "target", "train_seconds", "test_accuracy"]))
    best = rows[0].runs[0]
    named = best.predictions[["label", "prediction"]].map(lambda index: best.classes[index])
    write_csv(confusion, named.set_axis(["actual", "predicted"], axis=1))
    return [curves, cost, confusion]


def markdown(
    rows: Sequence[Standing], averages: Sequence[Standing], table: BenchmarkTable, terms: Terms
) -> str:
    """What came out in words, and the table, per target; of several targets, first over all of them."""
    parts = []
    if averages:
        parts += [_words(averages, terms), as_markdown(table).rstrip()]
    for target in dict.fromkeys(row.target for row in rows):
        of_target = [row for row in rows if row.target == target]
        lines = [f"## {terms.title_of(target)}", ""] if averages else []
        lines += [
            _words(of_target, terms),
            "",
            markdown_rows([COLUMNS, ALIGNMENT, *(_cells(row, terms) for row in of_target)]),
            "",
            f"Differences are to {of_target[0].reference}, in points, with the "
            f"{100 * of_target[0].confidence:g} % interval; ± is the {terms.error}.",
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _words(ranked: Sequence[Standing], terms: Terms) -> str:
    return f"**{headline(ranked, terms)}.** {' '.join(details(ranked, terms))}"


def _cells(row: Standing, terms: Terms) -> list[str]:
    means = {name: spread.mean for name, spread in row.metrics.items()}
    accuracy, difference = row.metrics["test_accuracy"], row.difference
    error = terms.error_of(accuracy)
    spread = "" if error is None else f" ± {100 * error:.1f} (n = {accuracy.n})"
    interval = f"{points(difference.mean)} ({points(difference.low)} to {points(difference.high)})"
    return [
        str(row.rank),
        row.method,
        row.target,
        percent(accuracy.mean) + spread,
        "" if row.is_reference else interval,
        row.verdict,
        f"{means['test_macro_f1']:.3f}",
        f"{means['test_calibration_error']:.3f}",
        duration(means["train_seconds"]),
        f"{means['images_per_second']:.0f}",
        f"{means['peak_memory_mb']:.0f}",
        f"{means['trainable_parameters']:,.0f}",
        " ".join(row.mlflow_run_ids),
    ]
