"""How good a classifier is, and how sure one can be that another is better. NumPy alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

Verdict = Literal["better", "worse", "within the noise"]
ROUNDING = 12  # decimals: thirds that add up to zero are zero


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


@dataclass(frozen=True)
class Spread:
    """The mean of a number over training seeds, and its sample standard deviation (None for one seed)."""

    mean: float
    std: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        if len(values) == 1:
            return cls(values[0], None, 1)
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
        return cls(mean, sqrt(variance), len(values))

    @property
    def standard_error(self) -> float | None:
        """Of the mean (None for one value)."""
        return None if self.std is None else self.std / sqrt(self.n)


@dataclass(frozen=True)
class Difference:
    """How much more of the test images one method gets right than another, as a share of 1."""

    mean: float
    low: float  # ends of the interval
    high: float
    p_value: float  # two-sided

    @property
    def verdict(self) -> Verdict:
        """By the interval: better or worse only if it leaves zero out."""
        if self.low > 0:
            return "better"
        if self.high < 0:
            return "worse"
        return "within the noise"


def paired_bootstrap(
    correct: ArrayLike, reference: ArrayLike, *, samples: int, confidence: float, seed: int = 0
) -> Difference:
    """The difference in accuracy to a reference on the same images, with a percentile bootstrap interval.

    Per image, correctness (0 or 1) is averaged over the seeds of a method, and the reference's is
    subtracted: one number per image, so that what makes an image hard for both drops out. The test
    images are then drawn anew with replacement, `samples` times, each time as many as there are, and
    the mean of their numbers is taken. The interval holds the middle `confidence` of these means.
    The seeds are not drawn anew: the interval says what other test images could have shown, not what
    other training seeds could have.

    Images with the same number are interchangeable, so each resample is one multinomial draw of how
    often each distinct number comes; this is the same distribution, at a cost that does not grow with
    the number of images. The result depends only on the arguments, `seed` included.

    Args:
        correct: the method's correctness (seeds, N).
        reference: the reference's (its seeds, N), the same images in the same order.
        samples: number of resamples.
        confidence: of the interval, between 0 and 1.

    Returns:
        The difference on the images as they are, its interval, and twice the share of resamples on the
        less frequent side of zero (ties count for both sides; never below 2 / (samples + 1)).
    """
    return paired_bootstrap_over_targets(
        [(correct, reference)], samples=samples, confidence=confidence, seed=seed
    )


def paired_bootstrap_over_targets(
    pairs: Sequence[tuple[ArrayLike, ArrayLike]], *, samples: int, confidence: float, seed: int = 0
) -> Difference:
    """The difference in accuracy averaged over targets, every target counting the same.

    As `paired_bootstrap`, whose words hold within each target: every resample draws the test images of
    each target anew, takes the mean of each, and the mean over the targets.

    Args:
        pairs: for each target the correctness of the method (seeds, N) and of the reference (its seeds, N).
    """
    generator = np.random.default_rng(seed)
    gains = [_share_correct(own) - _share_correct(other) for own, other in pairs]
    drawn = [_means_of_resamples(each, samples, generator) for each in gains]
    means = np.mean(drawn, axis=0).round(ROUNDING)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    below, above = (means <= 0).sum(), (means >= 0).sum()
    p_value = min(1.0, 2 * (1 + int(min(below, above))) / (1 + samples))
    return Difference(float(np.mean([each.mean() for each in gains])), float(low), float(high), p_value)


def _share_correct(correct: ArrayLike) -> np.ndarray:
    """The share of the seeds (N,) that were right on each image, from correctness (seeds, N)."""
    return np.asarray(np.asarray(correct).mean(axis=0, dtype=float))


def _means_of_resamples(gains: np.ndarray, samples: int, generator: np.random.Generator) -> np.ndarray:
    """The mean (samples,) of `gains` (N,) in each resample; images of one gain are drawn together."""
    values, counts = np.unique(gains.round(ROUNDING), return_counts=True)
    draws = generator.multinomial(gains.size, counts / gains.size, size=samples)
    return draws @ values / gains.size
