"""What each test image adds to a metric, so that one way of measuring intervals serves all metrics."""

import numpy as np
from scipy.stats import rankdata

from stochca.config.selection import Selection


def contributions(
    selection: Selection, labels: np.ndarray, predictions: np.ndarray, probabilities: np.ndarray | None = None
) -> np.ndarray:
    """Numbers (N,) whose mean is the metric, and whose spread over images is its spread over other images.

    Of accuracy and log loss, which are means over images, they are what is averaged. Of the others they are
    the metric plus its derivative by the weight of an image (the infinitesimal jackknife: Efron, The
    Jackknife, the Bootstrap and Other Resampling Plans, 1982, chapter 6). Of the AUROC that gives the
    variance of DeLong et al. (Biometrics 1988).

    Classes are left out of means as `stochca.evaluation.measure` leaves them out; the AUROC, which is not
    measured then, is here that of the classes that do occur.

    Args:
        labels: true classes (N,).
        predictions: predicted classes (N,).
        probabilities: (N, classes); of log loss and AUROC alone.
    """
    right = labels == predictions
    match selection:
        case "accuracy":
            return right.astype(float)
        case "balanced_accuracy":
            return _balanced_accuracy(labels, right)
        case "macro_f1":
            return _macro_f1(labels, predictions, right)
    assert probabilities is not None
    if selection == "log_loss":
        smallest = np.finfo(probabilities.dtype).eps  # as scikit-learn does
        own = probabilities[np.arange(len(labels)), labels]
        return -np.log(own.clip(smallest, 1 - smallest).astype(float))
    return _auroc(labels, probabilities)


def _balanced_accuracy(labels: np.ndarray, right: np.ndarray) -> np.ndarray:
    images = np.bincount(labels)
    recall = np.bincount(labels, right) / images.clip(min=1)
    occurring = images > 0
    classes = occurring.sum()
    return recall[occurring].mean() + len(labels) / classes * (right - recall[labels]) / images[labels]


def _macro_f1(labels: np.ndarray, predictions: np.ndarray, right: np.ndarray) -> np.ndarray:
    number = max(labels.max(), predictions.max()) + 1
    there = np.bincount(labels, minlength=number) + np.bincount(predictions, minlength=number)
    f1 = 2 * np.bincount(labels, right, minlength=number) / there.clip(min=1)
    classes = (there > 0).sum()
    # F1 is 2 hits / (labels + predictions); an image adds to these of its own class and of the predicted one.
    change = (2 * right - f1[labels]) / there[labels] - f1[predictions] / there[predictions]
    return f1[there > 0].mean() + len(labels) / classes * change


def _auroc(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The mean over classes, each against the rest; of two classes that of the second, which is the same."""
    number = probabilities.shape[1]
    measured = [label for label in range(number) if 0 < (labels == label).sum() < len(labels)]
    values = np.zeros(len(labels))
    for label in measured if number > 2 else [1]:
        positive = labels == label
        scores = probabilities[:, label]
        ranks = rankdata(scores)
        outranked = np.empty(len(labels))  # of the images of the other kind, the share on the right side
        for kind in (positive, ~positive):
            below = (ranks[kind] - rankdata(scores[kind])) / (~kind).sum()
            outranked[kind] = below if kind is positive else 1 - below
        area = outranked[positive].mean()
        images = np.where(positive, positive.sum(), len(labels) - positive.sum())
        values += area + len(labels) * (outranked - area) / images
    return values / (len(measured) if number > 2 else 1)
