"""How good a classifier is, in one number. NumPy alone."""

import numpy as np
from numpy.typing import ArrayLike


def macro_f1(labels: ArrayLike, predictions: ArrayLike, num_classes: int) -> float:
    """The mean over classes of F1, each class counting the same; from 0 to 1.

    A class that is neither a label nor a prediction is left out; one that is never predicted right counts 0.

    Args:
        labels: true classes (N,), integers from 0 to num_classes - 1.
        predictions: predicted classes (N,).
        num_classes: how many classes there are.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    actual = np.bincount(labels, minlength=num_classes)
    predicted = np.bincount(predictions, minlength=num_classes)
    right = np.bincount(labels[labels == predictions], minlength=num_classes)
    occurs = actual + predicted > 0
    return float(np.mean(2 * right[occurs] / (actual + predicted)[occurs]))


def calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error (Guo et al., ICML 2017): how far confidence is from accuracy; from 0 to 1.

    Images are sorted by the probability of their predicted class into `bins` bins of equal width,
    closed above; the result is the mean of |accuracy - confidence| over bins, weighted by their images.

    Args:
        probabilities: (N, classes), rows sum to 1.
        labels: true classes (N,).
    """
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(places, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))
