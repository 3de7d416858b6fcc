"""The map as heat maps and a table: what each method adds to plain fine-tuning, each at its own best rate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from benchmarks.mapping.grid import Blocks, Cell, best_rate
from benchmarks.measuring import print_head, print_row
from pipeline.report.intervals import Difference, estimate, judge

Results = Mapping[Cell, Mapping[str, Any]]
PLAIN: tuple[str, float, Blocks] = ("none", 0.0, "all")
PICTURES = Path("docs")
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Measure:
    """What is compared, of every test image, and the score on validation that chooses the rate."""

    title: str
    validation: str
    of: Callable[[Mapping[str, Any]], NDArray[np.float64]]  # (N,)
    unit: float  # one percentage point, or one nat
    decimals: int
    better: int  # 1: more is better, -1: less is
    limit: float  # of a difference


def _right(record: Mapping[str, Any]) -> NDArray[np.float64]:
    return np.array([float(value) for value in record["right"]])


def _losses(record: Mapping[str, Any]) -> NDArray[np.float64]:
    return np.array(record["losses"])


def _confidence_beyond(record: Mapping[str, Any]) -> NDArray[np.float64]:
    """What the model thinks its chance is to be right, less whether it is."""
    return np.array(record["confidences"]) - _right(record)


MEASURES = {
    "accuracy": Measure("accuracy, percentage points", "validation_accuracy", _right, 0.01, 1, 1, 1.0),
    "log-loss": Measure("log loss, nats", "validation_loss", _losses, 1.0, 3, -1, inf),
    "confidence": Measure(
        "confidence beyond accuracy, percentage points",
        "validation_loss",
        _confidence_beyond,
        0.01,
        1,
        -1,
        2.0,
    ),
}


def at_best_rate(cells: list[Cell], results: Results, measure: Measure) -> dict[int, NDArray[np.float64]]:
    """By seed what every test image came to, at the rate that validation chose."""
    seeds_by_rate = {lr: {cell.seed for cell in cells if cell.lr == lr} for lr in {cell.lr for cell in cells}}
    shared = set.intersection(*seeds_by_rate.values())
    rate = best_rate([cell for cell in cells if cell.seed in shared], results, measure.validation)
    return {cell.seed: measure.of(results[cell]) for cell in cells if cell.lr == rate}


def differences(results: Results, measure: Measure) -> dict[tuple[str, int, int], dict[Any, Difference]]:
    """By place and method: the mean over the seeds of what it adds to plain fine-tuning, with an interval."""
    found: dict[tuple[str, int, int], dict[Any, Difference]] = {}
    for place in sorted({cell.place for cell in results}):
        methods = {
            method: at_best_rate(
                [cell for cell in results if (cell.place, cell.method) == (place, method)], results, measure
            )
            for method in sorted({cell.method for cell in results if cell.place == place})
        }
        plain = methods.pop(PLAIN, {})
        compared = {}
        for method, by_seed in methods.items():
            seeds = sorted(by_seed.keys() & plain.keys())
            if len(seeds) > 1:
                compared[method] = estimate([np.stack([by_seed[seed] - plain[seed] for seed in seeds])])
        if compared:
            found[place] = dict(
                zip(compared, judge([*compared.values()], CONFIDENCE, measure.limit), strict=True)
            )
    return found


def report(results: Results) -> None:
    """Print a table for each measure, and draw its heat map as docs/map-*.png."""
    for name, measure in MEASURES.items():
        found = differences(results, measure)
        methods = sorted({method for by_method in found.values() for method in by_method})
        print(f"\nDifference to plain fine-tuning: {measure.title}\n")
        print_head("", *map(_place, found))
        for method in methods:
            cells = [by_method.get(method) for by_method in found.values()]
            print_row(_method(method), *(_said(cell, measure) if cell else "" for cell in cells))
        draw(found, methods, measure, PICTURES / f"map-{name}.png")


def draw(
    found: Mapping[tuple[str, int, int], Mapping[Any, Difference]],
    methods: list[Any],
    measure: Measure,
    path: Path,
) -> None:
    """Blue where it is better than plain fine-tuning, red where worse; bold where a difference is shown."""
    values = np.array(
        [
            [
                by_method[method].mean / measure.unit if method in by_method else np.nan
                for by_method in found.values()
            ]
            for method in methods
        ]
    )
    limit = float(np.nanmax(np.abs(values)))
    figure, axes = plt.subplots(
        figsize=(2.5 + 1.25 * len(found), 1.2 + 0.5 * len(methods)), layout="constrained"
    )
    axes.imshow(measure.better * values, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            difference = list(found.values())[column][methods[row]]
            axes.text(
                column,
                row,
                f"{value:+.{measure.decimals}f}\n({difference.low / measure.unit:+.{measure.decimals}f} to "
                f"{difference.high / measure.unit:+.{measure.decimals}f})",
                ha="center",
                va="center",
                fontsize=7,
                fontweight="bold" if difference.shown else None,
                color="white" if abs(value) > 0.6 * limit else "black",
            )
    axes.set_xticks(range(len(found)), [_place(place).replace(", ", "\n") for place in found], fontsize=8)
    axes.set_yticks(range(len(methods)), [*map(_method, methods)], fontsize=8)
    axes.set_title(f"Difference to plain fine-tuning: {measure.title}; blue is better", fontsize=9)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _place(place: tuple[str, int, int]) -> str:
    name, share, epochs = place
    return f"{name}, {share} % of the images, {epochs} epochs"


def _method(method: tuple[str, float, str]) -> str:
    first, prob, blocks = method
    parts = [f"StochCA, p = {prob:g}"] if prob else []
    parts += [f"{blocks} blocks"] if blocks != "all" else []
    return ", ".join(parts + ["LP-FT"] * (first == "lp_ft"))


def _said(difference: Difference, measure: Measure) -> str:
    mean, low, high = (
        f"{value / measure.unit:+.{measure.decimals}f}"
        for value in (difference.mean, difference.low, difference.high)
    )
    text = f"{mean} ({low} to {high})"
    return f"**{text}**" if difference.shown else text
