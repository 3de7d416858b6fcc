"""Pictures of one training for MLflow, drawn from its results."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline.runtime.drawing import plt
from stochca.config.selection import SELECTIONS, Metric


def draw(results: Path, target: Path) -> None:
    """Draw what a training has written into `results`; the pictures go into the folder `target`."""
    target.mkdir(exist_ok=True)
    description = json.loads((results / "run.json").read_text(encoding="utf-8"))
    metric = SELECTIONS[description.get("selection", "accuracy")]  # runs that have waited may be older
    learning_curves(pd.read_csv(results / "curves.csv"), metric).savefig(target / "curves.png")
    tested = pd.read_parquet(results / "predictions.parquet", columns=["label", "prediction"])
    classes = description["classes"]
    matrix = confusion_matrix(tested["label"].to_numpy(), tested["prediction"].to_numpy(), classes)
    matrix.savefig(target / "confusion_matrix.png")


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, classes: Sequence[str]) -> Figure:
    """How often each class was taken for which, as shares of the true class."""
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, (labels, predictions), 1)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    side = 3 + 0.45 * min(len(classes), 40)
    figure, axes = plt.subplots(figsize=(side, side), layout="constrained")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 40:
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
    if len(classes) <= 15:
        for row, column in np.ndindex(counts.shape):
            if counts[row, column]:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(
                    column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8
                )
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    plt.close(figure)
    return figure


def learning_curves(curves: pd.DataFrame, metric: Metric) -> Figure:
    """Training and validation loss, and the metric that selects, against steps."""
    evaluations = curves.dropna(subset="validation_loss")  # also after a step that was skipped
    figure, (loss, selected) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    loss.plot(curves["step"], curves["train_loss"], alpha=0.5, label="train")
    loss.plot(evaluations["step"], evaluations["validation_loss"], marker=".", label="validation")
    loss.set(xlabel="step", ylabel="cross-entropy")
    loss.legend()
    column = "validation_selection" if "validation_selection" in curves else "validation_accuracy"
    selected.plot(evaluations["step"], evaluations[column], marker=".")
    selected.set(xlabel="step", ylabel=f"validation {metric.title}")
    plt.close(figure)
    return figure
