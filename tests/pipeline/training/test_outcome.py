"""What is left of a run's log."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.tracking.pictures import learning_curves
from pipeline.training.outcome import write_curves
from stochca.config.selection import SELECTIONS


def test_an_evaluation_after_a_skipped_step_is_in_the_curves(tmp_path: Path) -> None:
    """Step 2 was evaluated and skipped, step 3 skipped alone."""
    evaluation = {"event": "eval", "loss": 0.7, "accuracy": 0.5, "value": 0.4}
    events = [
        {"event": "step", "step": 1, "loss": 1.5, "lr": 0.1},
        {**evaluation, "step": 2},
        {"event": "step", "step": 4, "loss": 1.25, "lr": 0.2},
        {**evaluation, "step": 4},
    ]
    write_curves(tmp_path / "curves.csv", events)
    with (tmp_path / "curves.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == [
        "step", "train_loss", "lr", "validation_loss", "validation_accuracy", "validation_selection"
    ]  # fmt: skip
    assert rows == [
        ["1", "1.5", "0.1", "", "", ""],
        ["2", "", "", "0.7", "0.5", "0.4"],
        ["4", "1.25", "0.2", "0.7", "0.5", "0.4"],
    ]
    figure = learning_curves(pd.read_csv(tmp_path / "curves.csv"), SELECTIONS["accuracy"])
    (selected,) = figure.axes[1].lines
    assert np.asarray(selected.get_xdata()).tolist() == [2, 4]
