"""How a method does class by class: precision, recall and F1; of two classes, curves over all thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve, precision_recall_fscore_support, roc_curve

from pipeline.report.comparison import Standing
from pipeline.report.results import Run


@dataclass(frozen=True)
class ByClass:
    """One class of one method; shares of 1, means over the training seeds."""

    precision: float
    recall: float
    f1: float


def by_class(row: Standing) -> list[ByClass]:
    """One per class. What would divide by no images is 0."""
    found = [
        precision_recall_fscore_support(
            run.predictions["label"],
            run.predictions["prediction"],
            labels=range(len(run.classes)),
            zero_division=0.0,
        )[:3]
        for run in row.runs
    ]
    return [ByClass(*numbers) for numbers in np.mean(found, axis=0).T.tolist()]


def images_by_class(run: Run) -> list[int]:
    """How many test images each class has."""
    return np.bincount(run.predictions["label"], minlength=len(run.classes)).tolist()


@dataclass(frozen=True)
class ThresholdCurves:
    """Of the first seed: y by x, as the threshold goes from one end to the other."""

    method: str
    roc: pd.Series  # recall of the second class by the share of the first that is taken for it
    precision_recall: pd.Series  # precision of the second class by its recall


def threshold_curves(rows: Sequence[Standing]) -> list[ThresholdCurves]:
    """Of these methods; none unless there are two classes and test images of both."""
    found = []
    for row in rows:
        run = row.runs[0]
        if run.second_class is None or min(images_by_class(run)) == 0:
            return []
        is_second = run.predictions["label"] == 1
        false, true, _ = roc_curve(is_second, run.second_class)
        precision, recall, _ = precision_recall_curve(is_second, run.second_class, drop_intermediate=True)
        roc = pd.Series(true, index=false)
        found.append(ThresholdCurves(row.method, roc, pd.Series(precision, index=recall)))
    return found
