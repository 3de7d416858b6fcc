"""Reads what training runs left behind: numbers, description, predictions and curves."""

import json
import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from pipeline.config.params import Params, Protocol
from pipeline.images.prepared import Prepared, load_prepared
from pipeline.report.asked import other_setting
from pipeline.report.contributions import contributions
from pipeline.runtime.paths import BACKBONE, METRICS, RESULTS
from stochca.backbones.card import CARD_FILE, BackboneCard
from stochca.config.selection import SELECTIONS
from stochca.errors import UserError, one_line

METRIC_NAMES = (
    *(f"test_{name}" for name in SELECTIONS),
    "test_calibration_error",
    "validation_accuracy",
    "validation_loss",
    "train_seconds",
    "images_per_second",
    "peak_memory_mb",
    "trainable_parameters",
)
# Of leave_one_domain_out alone: the best evaluation on the target, if protocol.oracle, and the last step.
OTHER_CHOICES = tuple(f"test_{name}_{choice}" for name in SELECTIONS for choice in ("oracle", "last"))
# Of the metric that selects.
SELECTED = tuple(f"validation_{name}" for name in SELECTIONS)
# Null where protocol.refit left no validation images, where another protocol was run, where the test images
# lack a class.
MAY_LACK = ("test_auroc", "validation_accuracy", "validation_loss", *SELECTED, *OTHER_CHOICES)
DESCRIPTION_KEYS = (
    *("config", "training", "mlflow_run_id", "notes", "classes"),
    *("protocol", "refit", "selection", "selected_step"),
    *("backbone", "dataset", "device", "precision", "git_commit"),
)
ROUNDING = 1e-5  # probabilities are stored with single precision
PREDICTION_COLUMNS = ["id", "label", "prediction", "confidence", "group"]
CURVE_COLUMNS = ["step", "train_loss", "validation_loss", "validation_accuracy", "validation_selection"]


@dataclass(frozen=True)
class Run:
    """One trained model's results."""

    method: str
    target: str
    seed: int
    stage: str  # that trains it, as dvc.yaml names it
    metrics: dict[str, float]  # METRIC_NAMES, SELECTED and OTHER_CHOICES, without what it does not have
    description: dict[str, Any]  # run.json; has DESCRIPTION_KEYS
    predictions: pd.DataFrame  # PREDICTION_COLUMNS; one row per test image, sorted by id
    curves: pd.DataFrame  # CURVE_COLUMNS; NaN where something was not evaluated
    # In the order of the predictions: what each image adds to the metric that selects, and of two classes the
    # probability of the second.
    contributions: np.ndarray
    second_class: np.ndarray | None

    @property
    def name(self) -> str:
        return f"{self.method}-{self.target}-{self.seed}"

    @property
    def classes(self) -> list[str]:
        return self.description["classes"]

    @property
    def correct(self) -> np.ndarray:
        """Which test images were right: bool (N,), in the order of the predictions."""
        return (self.predictions["label"] == self.predictions["prediction"]).to_numpy()

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """The curves where validation was evaluated; train_loss is the mean since the evaluation before."""
        curves = self.curves.sort_values("step")
        evaluated = curves["validation_accuracy"].notna()
        since = evaluated.shift(fill_value=False).cumsum()
        smooth = curves["train_loss"].groupby(since).transform("mean")
        return curves.assign(train_loss=smooth).loc[evaluated, CURVE_COLUMNS]


def read_runs(protocol: Protocol) -> list[Run]:
    """Every run that the protocol asks for: by target, then method, then seed.

    Raises:
        UserError: a file of a run is missing or damaged, or the runs of a target saw different test images.
    """
    runs: list[Run] = []
    for target in protocol.targets:
        first: Run | None = None
        for method, seed in product(protocol.methods, protocol.seeds):
            run = read_run(protocol, method, target, seed)
            first = first or run
            runs.append(_on_images_of(first, run))
    return runs


def read_inputs(params: Params) -> tuple[list[Run], Prepared, BackboneCard]:
    """Every run that `params` ask for, and the prepared images and the backbone they were made from.

    Backbones are the same if their whole cards are: weights, pooling, normalisation and image size.

    Raises:
        UserError: as `read_runs`; or the images or the backbone are missing, or a run was trained on others,
            or with other settings.
    """
    runs, prepared = read_runs(params.protocol), load_prepared()
    backbone = BackboneCard.from_file(BACKBONE / CARD_FILE)
    card = backbone.to_dict()
    for run in runs:
        if run.description["dataset"]["fingerprint"] != prepared.fingerprint:
            what = "on other images than data/prepared"
        elif run.description["backbone"] != card:
            what = "from another backbone than data/backbone"
        elif other := other_setting(params, run.method, run.description):
            what = f"with other settings ({other})"
        else:
            continue
        raise UserError(f"{RESULTS / run.name} was trained {what}; run: dvc repro {run.stage}")
    return runs, prepared, backbone


def read_run(protocol: Protocol, method: str, target: str, seed: int) -> Run:
    """One run.

    Raises:
        UserError: one of its files is missing or damaged; the sentence names the command that makes it.
    """
    name, selection = f"{method}-{target}-{seed}", protocol.selection
    kind = "baseline" if method in protocol.baseline else "combined"
    stage = f"stochca@{target}-{seed}" if method == "stochca" else f"{kind}@{name}"
    try:
        metrics = _numbers(path := METRICS / f"{name}.json")
        description = _json(path := RESULTS / name / "run.json", DESCRIPTION_KEYS)
        is_binary = len(description["classes"]) == 2
        needs_probabilities = is_binary or selection in ("log_loss", "auroc")
        columns = [*PREDICTION_COLUMNS, *(["probabilities"] if needs_probabilities else [])]
        table = _parquet(path := RESULTS / name / "predictions.parquet", columns)
        if table.empty or table["id"].duplicated().any():
            raise ValueError("it does not hold each test image once")
        table = table.sort_values("id", ignore_index=True)
        probabilities = np.stack(table.pop("probabilities").tolist()) if needs_probabilities else None
        labels, predictions = table["label"].to_numpy(), table["prediction"].to_numpy()
        told = contributions(selection, labels, predictions, probabilities)
        curves = pd.read_csv(path := RESULTS / name / "curves.csv")
        _require(CURVE_COLUMNS, curves)
        second = probabilities[:, 1] if probabilities is not None and is_binary else None
        run = Run(method, target, seed, stage, metrics, description, table, curves, told, second)
        path = METRICS / f"{name}.json"
        tested = {"accuracy": run.correct.mean()}
        if description["selection"] == selection:
            tested[selection] = told.mean()
        for metric, value in tested.items():
            if not abs(value - metrics.get(f"test_{metric}", math.nan)) <= ROUNDING * max(1, abs(value)):
                raise ValueError(f"its test_{metric} is not that of {RESULTS / name / 'predictions.parquet'}")
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run: dvc repro {stage}") from None
    except (OSError, ValueError) as error:
        reason = one_line(error)
        raise UserError(f"{path} is damaged ({reason}); run: dvc repro {stage}") from None
    if description["selection"] != selection:
        raise UserError(
            f"{RESULTS / name} was selected by {description['selection']}, but protocol.selection is "
            f"{selection}; run: dvc repro {stage}"
        )
    return run


def _numbers(path: Path) -> dict[str, float]:
    """The metrics of a run that are there."""
    values = _json(path, METRIC_NAMES)
    known: dict[str, float] = {}
    for name in dict.fromkeys((*METRIC_NAMES, *SELECTED, *OTHER_CHOICES)):
        value = values.get(name)
        if value is None and name in MAY_LACK:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{name} is {value!r}, no number")
        known[name] = value
    return known


def _json(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, not an object")
    _require(keys, value)
    return value


def _parquet(path: Path, columns: list[str]) -> pd.DataFrame:
    """The columns that are needed; the probabilities are large."""
    file = pq.ParquetFile(path)
    _require(columns, file.schema_arrow.names)
    return file.read(columns).to_pandas()


def _require(names: Sequence[str], values: Container[Any]) -> None:
    """Refuse values among whose keys or columns one of the names is not."""
    if absent := [name for name in names if name not in values]:
        raise ValueError(f"it has no {absent[0]}")


def _on_images_of(first: Run, run: Run) -> Run:
    """`run` with the names and labels of the test images that `first` holds, and small numbers of classes.

    What all runs of a target share is in memory once; a thousand runs need a few bytes per test image each.

    Raises:
        UserError: they are others; differences are taken image by image, so that can't be compared.
    """
    shared = {name: first.predictions[name] for name in ("id", "label")}
    same = all(np.array_equal(run.predictions[name], values) for name, values in shared.items())
    if run.classes != first.classes or not same:
        raise UserError(
            f"{RESULTS / first.name} and {RESULTS / run.name} were not tested on the same images and "
            f"classes, so they can't be compared; run: dvc repro {first.stage} {run.stage}"
        )
    prediction = pd.to_numeric(run.predictions["prediction"], downcast="unsigned")
    return replace(run, predictions=run.predictions.assign(**shared, prediction=prediction))
