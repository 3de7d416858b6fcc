"""The result page: one HTML file that needs nothing else, neither a network nor scripts."""

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.images.prepared import Prepared, PreparedImages
from pipeline.report import sentences
from pipeline.report.benchmark_table import BenchmarkTable, Block, TableLine
from pipeline.report.comparison import Average, Row, Standing
from pipeline.report.comparison_json import ProtocolFacts
from pipeline.report.confusion import Confusion
from pipeline.report.figures import Line, Point, Scale, curves, interval_axis, interval_bar, scatter
from pipeline.report.pictures import Analysed, Gallery, disagreements
from pipeline.tracking.labels import flatten
from stochca.config import CHOICES, Method

TEMPLATES = Path(__file__).parent / "templates"
COLOURS = 6  # in the style sheet, besides the reference's; further methods use them again, dashed
PACKAGES = ("torch", "timm", "numpy", "datasets", "mlflow", "dvc")
VERDICT_STYLES = {"better": "better", "worse": "worse", "within the noise": "noise"}


@dataclass(frozen=True)
class Section:
    """All that the page shows of one target."""

    rows: Sequence[Row]
    bars: Mapping[str, Markup]  # by method
    axis: Markup
    scatter: Markup
    curves: Markup | None  # None where nothing was validated
    confusion: Confusion  # of the best method
    gallery: Gallery | None

    @property
    def target(self) -> str:
        return self.rows[0].target


@dataclass(frozen=True)
class Overview:
    """What the page shows above the sections of several targets."""

    averages: Sequence[Average]
    bars: Mapping[str, Markup]  # by method
    axis: Markup
    ranked: Block  # of the table, whose numbers rank the methods
    lines: Mapping[str, TableLine]  # of that block, by method


def build_page(
    rows: Sequence[Row],
    averages: Sequence[Average],
    table: BenchmarkTable,
    protocol: ProtocolFacts,
    prepared: Prepared,
    backbone: Mapping[str, Any],
    analysed: Sequence[Analysed] = (),
) -> str:
    """The page as HTML.

    Args:
        rows: what came out, ranked, of one or more targets.
        averages: the same over the targets, where there are several.
        table: the same as papers print it.
        protocol: what was asked for.
        prepared: the images that it is about.
        backbone: the contents of the backbone's card.
        analysed: pictures of what fine-tuning changed, by method.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    runs = [run for row in rows for run in row.runs]
    reference = next(row for row in rows if row.is_reference)
    styles = method_styles([row.method for row in rows], reference.method)
    targets = dict.fromkeys(row.target for row in rows)
    everything = prepared.select(range(len(prepared.table)))
    return environment.get_template("report.html").render(
        words=sentences,
        overview=_overview(averages, table) if averages else None,
        table=table,
        protocol=protocol,
        terms=protocol.terms,
        sections=[
            _section([row for row in rows if row.target == target], styles, everything) for target in targets
        ],
        reference=reference.method,
        confidence=reference.confidence,
        styles=styles,
        verdict_styles=VERDICT_STYLES,
        colours=COLOURS,
        manifest=prepared.manifest,
        backbone=backbone,
        analysed=analysed,
        runs=runs,
        choices={run.method: describe_method(run.description["config"]) for run in runs},
        training=flatten(reference.runs[0].description["training"]),
        devices=sorted({f"{run.description['device']}, {run.description['precision']}" for run in runs}),
        commits=sorted({str(run.description["git_commit"]) for run in runs}),
        versions={"Python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    )


def method_styles(methods: Sequence[str], reference: str) -> dict[str, str]:
    """A CSS class per method, the same in every figure; the reference is neutral."""
    names = sorted(set(methods) - {reference}, key=lambda name: (name != "stochca", name))
    styles = {reference: "reference"}
    for index, name in enumerate(names):
        styles[name] = f"colour-{index % COLOURS}" + (" dashed" if index >= COLOURS else "")
    return styles


def describe_method(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a method sets differently from plain fine-tuning, as flat settings.

    Numbers of a choice are told also where they are its defaults, other options only where they are not.
    """
    plain = flatten(dataclasses.asdict(Method()))
    defaults: dict[str, Any] = {}
    for choice, classes in CHOICES.items():
        chosen = config.get(choice)
        if isinstance(chosen, Mapping) and chosen["name"] in classes:
            options = dataclasses.asdict(classes[chosen["name"]]())
            defaults |= {f"{choice}.{key}": value for key, value in flatten(options).items() if key != "name"}
    return {
        key: value
        for key, value in flatten(config).items()
        if plain.get(key) != value and not (defaults.get(key) == value and isinstance(value, str | None))
    }


def _overview(averages: Sequence[Average], table: BenchmarkTable) -> Overview:
    scale = _scale(averages)
    return Overview(
        averages=averages,
        bars={average.method: _bar(average, scale) for average in averages},
        axis=interval_axis(scale),
        ranked=table.blocks[0],
        lines={line.method: line for line in table.blocks[0].lines},
    )


def _section(rows: Sequence[Row], styles: Mapping[str, str], images: PreparedImages) -> Section:
    scale = _scale(rows)
    return Section(
        rows=rows,
        bars={row.method: _bar(row, scale) for row in rows},
        axis=interval_axis(scale),
        scatter=_scatter(rows, styles),
        curves=_curves(rows, styles),
        confusion=Confusion.of(rows[0].runs[0]),
        gallery=_gallery(rows, images),
    )


def _scale(rows: Sequence[Standing]) -> Scale:
    return Scale.around([0.0, *(end for row in rows for end in (row.difference.low, row.difference.high))])


def _bar(row: Standing, scale: Scale) -> Markup:
    difference = row.difference
    if row.is_reference:
        return interval_bar(scale, 0, 0, 0, "is-reference", f"{row.method} is the reference")
    tooltip = f"{sentences.points(difference.mean)} points, {sentences.interval(row)}: {row.verdict}"
    style = VERDICT_STYLES[row.judgement]
    return interval_bar(scale, difference.low, difference.mean, difference.high, style, tooltip)


def _scatter(rows: Sequence[Row], styles: Mapping[str, str]) -> Markup:
    reference = next(row for row in rows if row.is_reference)
    points = [
        Point(
            rank=row.rank,
            style=styles[row.method],
            x=row.metrics["train_seconds"].mean,
            y=row.accuracy,
            low=reference.accuracy + row.difference.low,
            high=reference.accuracy + row.difference.high,
            hollow=row.difference.verdict == "within the noise" and not row.is_reference,
            tooltip=f"{row.method}: {sentences.percent(row.accuracy)} right after "
            f"{sentences.duration(row.metrics['train_seconds'].mean)} of training; {row.verdict}",
        )
        for row in rows
    ]
    label = "Test accuracy over seconds of training. " + "; ".join(point.tooltip for point in points)
    return scatter(points, reference.accuracy, label)


def _curves(rows: Sequence[Row], styles: Mapping[str, str]) -> Markup | None:
    """None where nothing was validated."""
    lines = []
    for row in rows:
        seeds = [run.looks.set_index("step")["validation_accuracy"] for run in row.runs]
        mean = pd.concat(seeds, axis=1).mean(axis=1)
        if mean.empty:
            continue
        best, last = sentences.percent(mean.max()), sentences.percent(mean.iloc[-1])
        tooltip = f"{row.method}: at best {best}, at the end {last}"
        lines.append(Line(styles[row.method], _pairs(mean), [_pairs(seed) for seed in seeds], tooltip))
    if not lines:
        return None
    return curves(lines, "Validation accuracy over steps. " + "; ".join(line.tooltip for line in lines))


def _pairs(curve: pd.Series) -> list[tuple[float, float]]:
    return [(float(step), float(value)) for step, value in zip(curve.index, curve, strict=True)]


def _gallery(rows: Sequence[Row], images: PreparedImages) -> Gallery | None:
    """stochca beside the reference; beside the best other method where it is the reference itself."""
    first = next((row for row in rows if row.method == "stochca"), None)
    others = [row for row in rows if row.method != "stochca"]
    second = next((row for row in others if row.is_reference), others[0] if others else None)
    if first is None or second is None:
        return None
    return disagreements(first.runs[0], second.runs[0], images)
