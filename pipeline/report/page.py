"""The result page: one HTML file that needs nothing else, neither a network nor scripts."""

import base64
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.images.prepared import Prepared, PreparedImages
from pipeline.report import sentences
from pipeline.report.benchmark_table import BenchmarkTable
from pipeline.report.by_class import by_class, images_by_class, threshold_curves
from pipeline.report.comparison import Standing
from pipeline.report.comparison_json import ProtocolFacts
from pipeline.report.documents import TEMPLATES
from pipeline.report.results import Run
from pipeline.runtime.paths import BLOCKS
from pipeline.tracking.labels import flatten
from stochca.config import CHOICES, Method

COLOURS = 6  # in the style sheet, besides the reference's; further methods use them again, dashed
LARGEST_MATRIX = 25  # classes of a confusion matrix that can be read; of more only the mistakes are listed
MISTAKES = 5
OTHER_METRICS = {  # beside the one that ranks
    "Accuracy": "test_accuracy",
    "Macro-F1": "test_macro_f1",
    "Log loss": "test_log_loss",
}
SIDE = 112  # pixels; larger pictures are scaled down
LIMIT = 24  # pictures on which methods disagree
VERDICT_STYLES = {"better": "better", "worse": "worse", "no difference shown": "noise"}


@dataclasses.dataclass(frozen=True)
class Scale:
    """An axis of a figure that templates/figures.html draws: maps values to 0-100 % of it, and has ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def around(cls, values: Sequence[float], ticks: int = 5, margin: float = 0.06) -> "Scale":
        """An axis that holds the values and a margin, with about so many round ticks."""
        low, high = min(values), max(values)
        extent = high - low or abs(high) or 1.0
        step = _round_step(extent / ticks)
        low, high = low - margin * extent, high + margin * extent
        first, last = math.ceil(low / step), math.floor(high / step)
        return cls(low, high, tuple(round(index * step, 10) for index in range(first, last + 1)))

    def percent(self, value: float) -> float:
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    def share(self, value: float) -> str:
        """As a length in SVG: ``12.5%``."""
        return f"{self.percent(value):g}%"

    def height(self, value: float, pixels: int) -> float:
        """From the top of a figure that is so many pixels high."""
        return round(pixels * (1 - self.percent(value) / 100), 1)


def build_page(
    rows: Sequence[Standing],
    averages: Sequence[Standing],
    table: BenchmarkTable,
    protocol: ProtocolFacts,
    prepared: Prepared,
    backbone: Mapping[str, Any],
    analysed: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The page as HTML; `backbone` is the contents of its card, `analysed` what `read_analysed` gives."""
    runs = [run for row in rows for run in row.runs]
    reference = next(row for row in rows if row.is_reference)
    styles = method_styles([row.method for row in rows], reference.method)
    targets = dict.fromkeys(row.target for row in rows)
    everything = prepared.select(range(len(prepared.table)))
    return TEMPLATES.get_template("report.html").render(
        words=sentences,
        averages=averages,
        scale=_scale(averages) if averages else None,
        table=table,
        protocol=protocol,
        terms=protocol.terms,
        sections=[_section([row for row in rows if row.target == target], everything) for target in targets],
        reference=reference.method,
        confidence=reference.confidence,
        metric=reference.metric,
        others={
            title: name for title, name in OTHER_METRICS.items() if name != f"test_{reference.metric.name}"
        },
        shares=Scale(-0.02, 1.02, (0.0, 0.25, 0.5, 0.75, 1.0)),
        styles=styles,
        verdict_styles=VERDICT_STYLES,
        colours=COLOURS,
        largest_matrix=LARGEST_MATRIX,
        manifest=prepared.manifest,
        backbone=backbone,
        analysed=analysed,
        runs=runs,
        choices={run.method: describe_method(run.description["config"]) for run in runs},
        training=flatten(reference.runs[0].description["training"]),
        devices=sorted({f"{run.description['device']}, {run.description['precision']}" for run in runs}),
        commits=sorted({str(run.description["git_commit"]) for run in runs}),
        versions=versions_of(runs),
    )


def versions_of(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Of each library that computed the runs its versions, several where they differ."""
    told = [run.description.get("versions", {}) for run in runs]  # runs of long ago don't tell
    names = dict.fromkeys(name for versions in told for name in versions)
    return {name: sorted({versions.get(name, "unknown") for versions in told}) for name in names}


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


def _section(rows: Sequence[Standing], images: PreparedImages) -> dict[str, Any]:
    """All that the page shows of one target."""
    reference = next(row for row in rows if row.is_reference)
    seconds = Scale.around([0.0, *(row.metrics["train_seconds"].mean for row in rows)], margin=0.05)
    sign = rows[0].metric.sign
    gains = [end for row in rows for end in (row.difference.low, row.difference.high)]
    ends = [reference.value + sign * end for end in gains]
    detailed = [rows[0]] if rows[0].is_reference else [rows[0], reference]
    return {
        "target": rows[0].target,
        "rows": rows,
        "averaged": [row.method for row in rows if keeps_average(row)],
        "chosen": [row.method for row in rows if not keeps_average(row)],
        "scale": _scale(rows),
        "seconds": Scale(0.0, seconds.high, tuple(tick for tick in seconds.ticks if tick >= 0)),
        "results": Scale.around([*ends, *(row.value for row in rows)]),
        "detailed": {row.method: by_class(row) for row in detailed},
        "images_by_class": images_by_class(rows[0].runs[0]),
        "thresholds": threshold_curves(detailed),
        "curves": _curves(rows),
        "confusion": confusion(rows[0].runs[0]),  # of the best method
        "gallery": _gallery(rows, images),
    }


def keeps_average(row: Standing) -> bool:
    """Whether its weights are the average of several, which no evaluation of the validation images chose."""
    return any(run.description["selected_step"] is None for run in row.runs)


def confusion(run: Run) -> dict[str, Any]:
    """What a method took for what on the test images: `counts` (actual classes, predicted classes).

    `shares` are those of the images of the actual class, `mistakes` the most frequent ones.
    """
    classes = run.classes
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, (run.predictions["label"], run.predictions["prediction"]), 1)
    totals = counts.sum(axis=1)
    wrong = run.predictions[~run.correct].groupby(["label", "prediction"]).size()
    frequent: Any = wrong.sort_values(ascending=False, kind="stable")[:MISTAKES]
    mistakes = [
        {"actual": classes[label], "predicted": classes[taken_for], "images": images, "out_of": totals[label]}
        for (label, taken_for), images in frequent.to_dict().items()
    ]
    shares = counts / totals[:, None].clip(min=1)
    return {"run": run, "counts": counts, "shares": shares, "mistakes": mistakes}


def _scale(rows: Sequence[Standing]) -> Scale:
    """Of differences to the reference."""
    return Scale.around([0.0, *(end for row in rows for end in (row.difference.low, row.difference.high))])


def _curves(rows: Sequence[Standing]) -> dict[str, Any] | None:
    """None where nothing was validated, or once alone: that makes no curve."""
    lines: list[dict[str, Any]] = []
    for row in rows:
        seeds = [run.evaluations.set_index("step")["validation_selection"] for run in row.runs]
        mean = mean_curve(seeds)
        if len(mean) < 2:
            continue
        most = mean.max() if row.metric.higher_is_better else mean.min()
        best, last = (sentences.reading(row.metric, value) for value in (most, mean.iloc[-1]))
        tooltip = f"{row.method}: at best {best}, at the end {last}"
        lines.append({"method": row.method, "mean": mean, "seeds": seeds, "tooltip": tooltip})
    if not lines:
        return None
    seeds = [seed for line in lines for seed in line["seeds"]]
    return {
        "lines": lines,
        "steps": Scale.around([float(step) for seed in seeds for step in seed.index], margin=0.0),
        "scores": Scale.around([value for seed in seeds for value in seed]),
    }


def mean_curve(seeds: Sequence[pd.Series]) -> pd.Series:
    """The mean of curves evaluation by evaluation, as far as all of them go: values by mean step.

    Seeds that train on unlike numbers of images are evaluated after unlike steps.
    """
    shared = min(map(len, seeds))
    steps, values = (
        np.mean([each[:shared] for each in of_seeds], axis=0)
        for of_seeds in ([seed.index for seed in seeds], [seed.to_numpy() for seed in seeds])
    )
    return pd.Series(values, index=steps)


def _gallery(rows: Sequence[Standing], images: PreparedImages) -> dict[str, Any] | None:
    """stochca beside the reference; beside the best other method where it is the reference itself."""
    first = next((row for row in rows if row.method == "stochca"), None)
    others = [row for row in rows if row.method != "stochca"]
    second = next((row for row in others if row.is_reference), others[0] if others else None)
    if first is None or second is None:
        return None
    return disagreements(first.runs[0], second.runs[0], images)


def disagreements(first: Run, second: Run, images: PreparedImages, limit: int = LIMIT) -> dict[str, Any]:
    """Where two runs on the same images, which are among `images`, disagree: how often, and some pictures.

    The surest disagreements of each kind are shown, taking turns.
    """
    both = first.predictions.merge(second.predictions, on=["id", "label"], suffixes=("_first", "_second"))
    both = both[both["prediction_first"] != both["prediction_second"]]
    rights = [both["label"] == both[f"prediction_{which}"] for which in ("first", "second")]
    both = both.assign(
        kind=np.select(rights, [0, 1], 2),  # the first alone is right, the second alone, neither
        sureness=both["confidence_first"] + both["confidence_second"],
    )
    both = both.sort_values(["sureness", "id"], ascending=[False, True])
    both = both.assign(turn=both.groupby("kind").cumcount()).sort_values(["turn", "kind"])
    disputed = set(both["id"])
    places = {id: place for place, id in enumerate(images.ids) if id in disputed}
    pictures: dict[str, dict[str, Any]] = {}  # the same picture under several names is shown once
    row: Any
    for row in both.itertuples():
        image, _ = images[places[row.id]]
        image.thumbnail((SIDE, SIDE))
        encoded = io.BytesIO()
        image.save(encoded, "WEBP", quality=85)
        url = _data_url("webp", encoded.getvalue())
        picture = {
            "id": row.id,
            "true_class": first.classes[row.label],
            "data_url": url,
            "width": image.width,
            "height": image.height,
            "answers": [
                {
                    "method": run.method,
                    "class_name": first.classes[prediction],
                    "confidence": confidence,
                    "right": prediction == row.label,
                }
                for run, prediction, confidence in (
                    (first, row.prediction_first, row.confidence_first),
                    (second, row.prediction_second, row.confidence_second),
                )
            ],
        }
        pictures.setdefault(url, picture)
        if len(pictures) == limit:
            break
    only_first, only_second, neither = (int((both["kind"] == kind).sum()) for kind in range(3))
    return {
        "first": first.method,
        "second": second.method,
        "seed": first.seed,
        "test_images": len(first.predictions),
        "total": len(both),
        "only_first_right": only_first,
        "only_second_right": only_second,
        "both_wrong": neither,
        "pictures": list(pictures.values()),
    }


def read_analysed(methods: Sequence[str]) -> list[dict[str, str | None]]:
    """What the stage `analyse` has drawn of those of `methods` that it was run for, in this order: data URLs.

    `attention` is None where the model has no attention maps.
    """

    def drawn(method: str, name: str) -> str | None:
        path = BLOCKS / method / name
        return _data_url("png", path.read_bytes()) if path.exists() else None

    return [
        {"method": method, "blocks": blocks, "attention": drawn(method, "attention.png")}
        for method in methods
        if (blocks := drawn(method, "blocks.png")) is not None
    ]


def _data_url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _round_step(step: float) -> float:
    """The next larger of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))
