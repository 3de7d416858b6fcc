"""What of a classifier's metrics scikit-learn does not have."""

import numpy as np
from numpy.typing import ArrayLike


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
