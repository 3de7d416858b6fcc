"""The result page: one HTML file that needs nothing else, neither network nor scripts."""

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline import figures, wording
from pipeline.comparison import Row
from pipeline.gallery import Gallery, disagreements
from pipeline.prepared import Prepared
from pipeline.results import Run
from pipeline.statistics import Spread
from stochca.methods import Method

TEMPLATES = Path(__file__).parent / "templates"
COLOURS = 6  # that the style sheet has; further methods use them again, dashed
LARGEST_MATRIX = 25  # classes; more are not drawn, only the most frequent mistakes are listed
MISTAKES = 5  # most frequent ones that are listed
PACKAGES = ("torch", "timm", "numpy", "datasets", "mlflow", "dvc")


@dataclass(frozen=True)
class Confusion:
    """What the best method took for what, on the test images of its first seed."""

    run: Run
    counts: np.ndarray  # (true classes, predicted classes)

    @property
    def shares(self) -> np.ndarray:
        """Of the images of the true class."""
        return self.counts / self.counts.sum(axis=1, keepdims=True).clip(min=1)

    @property
    def drawable(self) -> bool:
        return len(self.counts) <= LARGEST_MATRIX

    @property
    def mistakes(self) -> list[tuple[str, str, int, int]]:
        """The most frequent: true class, predicted class, images, images of the true class."""
        wrong = self.counts - np.diag(np.diag(self.counts))
        frequent = np.argsort(-wrong, axis=None, kind="stable")[:MISTAKES]
        places = [np.unravel_index(place, wrong.shape) for place in frequent]
        classes, totals = self.run.classes, self.counts.sum(axis=1)
        return [
            (classes[true], classes[predicted], int(wrong[true, predicted]), int(totals[true]))
            for true, predicted in places
            if wrong[true, predicted]
        ]


@dataclass(frozen=True)
class Section:
    """All that the page shows of one target."""

    rows: Sequence[Row]
    styles: Mapping[str, str]  # CSS class of each method's colour
    bars: Mapping[str, Markup]
    axis: Markup
    scatter: Markup
    curves: Markup
    confusion: Confusion
    gallery: Gallery | None

    @property
    def target(self) -> str:
        return self.rows[0].target

    @property
    def reference(self) -> Row:
        return next(row for row in self.rows if row.is_reference)


def build_page(rows: Sequence[Row], prepared: Prepared, backbone: Mapping[str, Any]) -> str:
    """The page as HTML, from the ranked rows, the images they are about, and the backbone's card."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update({"words": wording, "style_count": COLOURS})
    targets = dict.fromkeys(row.target for row in rows)
    runs = [run for row in rows for run in row.runs]
    return environment.get_template("report.html").render(
        sections=[_section([row for row in rows if row.target == target], prepared) for target in targets],
        manifest=prepared.manifest,
        backbone=backbone,
        runs=runs,
        choices={run.method: describe_method(run.description["config"]) for run in runs},
        training=_flat(_reference_run(rows).description["training"]),
        devices=sorted({f"{run.description['device']}, {run.description['precision']}" for run in runs}),
        commits=sorted({str(run.description["git_commit"]) for run in runs}),
        versions={"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    )


def method_styles(methods: Sequence[str], reference: str) -> dict[str, str]:
    """A CSS class per method, the same in every figure: the reference is neutral, stochca comes first."""
    others = sorted((method for method in methods if method != reference), key=lambda name: name != "stochca")
    styles = {reference: "reference"}
    for index, method in enumerate(others):
        styles[method] = f"colour-{index % COLOURS}" + (" dashed" if index >= COLOURS else "")
    return styles


def describe_method(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a method sets apart from plain fine-tuning, as flat settings."""
    plain = _flat(dataclasses.asdict(Method()))
    return {key: value for key, value in _flat(config).items() if plain.get(key) != value}


def _section(rows: Sequence[Row], prepared: Prepared) -> Section:
    reference = next(row for row in rows if row.is_reference)
    scale = figures.Scale.around(
        [0.0, *(end for row in rows for end in (row.difference.low, row.difference.high))]
    )
    styles = method_styles([row.method for row in sorted(rows, key=lambda row: row.order)], reference.method)
    return Section(
        rows=rows,
        styles=styles,
        bars={row.method: _bar(row, scale) for row in rows},
        axis=figures.interval_axis(scale),
        scatter=_scatter(rows, reference, styles),
        curves=_curves(rows, styles),
        confusion=confusion_of(rows[0].runs[0]),
        gallery=_gallery(rows, reference, prepared),
    )
