"""Pictures of one run for MLflow."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure


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


def learning_curves(events: Sequence[Mapping[str, Any]]) -> Figure:
    """Training and validation loss, and validation accuracy, against steps."""
    steps = [event for event in events if event["event"] == "step"]
    evaluations = [event for event in events if event["event"] == "eval"]
    figure, (loss, accuracy) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    loss.plot([e["step"] for e in steps], [e["loss"] for e in steps], alpha=0.5, label="train")
    loss.plot(
        [e["step"] for e in evaluations], [e["loss"] for e in evaluations], marker=".", label="validation"
    )
    loss.set(xlabel="step", ylabel="cross-entropy")
    loss.legend()
    accuracy.plot([e["step"] for e in evaluations], [e["accuracy"] for e in evaluations], marker=".")
    accuracy.set(xlabel="step", ylabel="validation accuracy")
    plt.close(figure)
    return figure
