"""How sure one can be that a method is better: spreads over seeds, bootstrap intervals over test images."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

Verdict = Literal["better", "worse", "within the noise"]
ROUNDING = 12  # decimals: thirds that add up to zero are zero


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
    pairs: Sequence[tuple[ArrayLike, ArrayLike]], *, samples: int, confidence: float, seed: int = 0
) -> Difference:
    """The difference in accuracy to a reference on the same images, with a percentile bootstrap interval.

    Per image, correctness (0 or 1) is averaged over the seeds of a method, and the reference's is
    subtracted: one number per image, so that what makes an image hard for both drops out. The test
    images are then drawn anew with replacement, `samples` times, each time as many as there are, and
    the mean of their numbers is taken; of several targets, each draws its own images, and the mean over
    the targets counts. The interval holds the middle `confidence` of these means. The seeds are not drawn
    anew: the interval says what other test images could have shown, not what other training seeds could
    have.

    Images with the same number are interchangeable, so each resample is one multinomial draw of how
    often each distinct number comes; this is the same distribution, at a cost that does not grow with
    the number of images. The result depends only on the arguments, `seed` included.

    Args:
        pairs: for each target the correctness of the method (seeds, N) and of the reference (its seeds, N),
            the same images in the same order.
        samples: number of resamples.
        confidence: of the interval, between 0 and 1.

    Returns:
        The difference on the images as they are, its interval, and twice the share of resamples on the
        less frequent side of zero (ties count for both sides; never below 2 / (samples + 1)).
    """
    generator = np.random.default_rng(seed)
    gains = [
        np.asarray(own, float).mean(axis=0) - np.asarray(other, float).mean(axis=0) for own, other in pairs
    ]
    drawn = [_means_of_resamples(each, samples, generator) for each in gains]
    means = np.mean(drawn, axis=0).round(ROUNDING)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    below, above = (means <= 0).sum(), (means >= 0).sum()
    p_value = min(1.0, 2 * (1 + int(min(below, above))) / (1 + samples))
    return Difference(float(np.mean([each.mean() for each in gains])), float(low), float(high), p_value)


def _means_of_resamples(gains: np.ndarray, samples: int, generator: np.random.Generator) -> np.ndarray:
    """The mean (samples,) of `gains` (N,) in each resample; images of one gain are drawn together."""
    values, counts = np.unique(gains.round(ROUNDING), return_counts=True)
    draws = generator.multinomial(gains.size, counts / gains.size, size=samples)
    return draws @ values / gains.size
