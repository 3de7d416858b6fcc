"""How sure one can be that a method is better: intervals over training seeds and test images; verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit  # Student's t

from stochca.config.selection import Metric

Verdict = Literal["better", "worse", "no difference shown"]


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
class Estimate:
    """What the training seeds and test images that were drawn say of the mean over all."""

    mean: float
    standard_error: float
    share: float  # of the variance that the seeds bring in; the images bring in the rest
    freedom: tuple[float, float]  # degrees, of the seeds and of the images (or groups of them)

    def chance(self, errors: float) -> float:
        """That a mean is so many standard errors or more off the truth, to either side.

        By Student's t with the degrees of freedom of the seeds and with those of the images, each weighted by
        its share of the variance. Cochran (Biometrics 20, 1964) so weighs the quantiles, which is wider.
        """
        of_seeds, of_images = (2 * float(stdtr(freedom, -abs(errors))) for freedom in self.freedom)
        return self.share * of_seeds + (1 - self.share) * of_images

    @property
    def p_value(self) -> float:
        """Two-sided, of a mean of zero."""
        if self.standard_error == 0:
            return float(self.mean == 0)
        return self.chance(self.mean / self.standard_error)

    def interval(self, confidence: float, limit: float = 1.0) -> tuple[float, float]:
        """Its ends, within `limit` on both sides of zero; the default is that of differences of shares."""
        widest = 2 * float(stdtrit(min(self.freedom), (1 + confidence) / 2))
        margin = self.standard_error * brentq(
            lambda errors: self.chance(errors) - (1 - confidence), 0, widest
        )
        return max(-limit, self.mean - margin), min(limit, self.mean + margin)


@dataclass(frozen=True)
class Difference:
    """How much better one method is than another, in the units of the metric that ranks them."""

    mean: float
    low: float  # ends of the interval, which holds for this comparison alone
    high: float
    p_value: float = 1.0  # two-sided, likewise
    adjusted: float = 1.0  # p value among all the comparisons that were made
    shown: bool = False  # by the adjusted p value

    @property
    def verdict(self) -> Verdict:
        if not self.shown:
            return "no difference shown"
        return "better" if self.mean > 0 else "worse"

    def verdict_on(self, reference: str) -> str:
        """The verdict in words, such as ``better than finetune``."""
        return f"{self.verdict} than {reference}" if self.shown else self.verdict


def estimate(
    targets: Sequence[ArrayLike],
    labels: Sequence[np.ndarray] | None = None,
    groups: Sequence[ArrayLike] | None = None,
) -> Estimate:
    """The mean of what every training seed did on every test image, and how well that is known.

    Seeds and images are crossed: a value is the mean, plus what its seed adds, its image, and both together.
    So the variance of the mean is s²_seed / S + s²_image / N + s²_both / SN. Its parts are estimated from the
    mean squares of a two-way analysis of variance (Searle, Casella and McCulloch, Variance Components, 1992,
    chapter 4); where the seeds spread less than s²_both alone explains, s²_seed is zero.

    Satterthwaite's degrees of freedom for such a sum are too many with few seeds: where these happen to be
    alike, the spread is small and seems well known. `Estimate.chance` does without them. How often the
    intervals hold is in benchmarks/coverage.py.

    With one seed the mean is that of this training run: nothing is known of others.

    Images of one group, such as a patient's, resemble each other: all that they add is one observation in
    place of an image's (Liang and Zeger, Biometrika 1986).

    Args:
        targets: for each target its values (S, N). Targets count the same, have the same seeds and images of
            their own; S is the same for all, N need not be.
        labels: for each target the classes (N,) of its images, where classes count the same.
        groups: for each target the groups (N,) of its images; None: each is on its own.
    """
    images_of = [np.asarray(each, float) for each in targets]
    places = _places(images_of, groups)
    values = [_by_group(each, place) for each, place in zip(images_of, places, strict=True)]
    by_seed = np.mean([each.mean(axis=1) for each in images_of], axis=0)
    seeds = len(by_seed)
    if min(each.shape[1] for each in values) == 1:
        return Estimate(float(by_seed.mean()), inf, 0.0, (1, 1))
    kinds: list[np.ndarray | None] = [*labels] if labels else [None] * len(values)
    own = [
        _over_images(each.mean(axis=0), kind, place)
        for each, kind, place in zip(images_of, kinds, places, strict=True)
    ]
    images = sum(variance for variance, _ in own) / len(values) ** 2
    freedom = min(freedom for _, freedom in own)
    if seeds == 1:
        return Estimate(float(by_seed.mean()), sqrt(images), 0.0, (freedom, freedom))
    both = sum(_interaction(each) / each.size for each in values) / len(values) ** 2
    spread = by_seed.var(ddof=1) / seeds  # holds `both`, as `images` does
    variance = images + max(0.0, spread - both)
    share = min(1.0, spread / variance) if variance else 0.0
    return Estimate(float(by_seed.mean()), sqrt(variance), share, (seeds - 1, freedom))


def estimate_metric(
    metric: Metric,
    added: Sequence[ArrayLike],
    labels: Sequence[np.ndarray],
    groups: Sequence[ArrayLike] | None = None,
) -> Estimate:
    """Of a metric, or of its difference, by what the test images add to it; arguments as of `estimate`."""
    return estimate(added, labels if metric.by_class else None, groups)


def accuracy_interval(
    targets: Sequence[ArrayLike], confidence: float, groups: Sequence[ArrayLike] | None = None
) -> tuple[float, float]:
    """How much a method gets right, as a share of 1, by which images (S, N) of each target were right.

    Two right and two wrong images more keep the interval from closing where nearly all are right (Agresti and
    Coull, 1998); where images come in groups, two groups of each kind, of the mean size.
    """
    values = [np.asarray(each, float) for each in targets]
    added, together = [], []
    for each, places in zip(values, _places(values, groups), strict=True):
        number = places.max() + 1
        size = round(len(places) / number)
        sides = ((0, 0), (2 * size, 0))
        added.append(np.pad(np.pad(each, sides), sides, constant_values=1))
        together.append(np.concatenate([np.repeat(number + np.arange(4), size), places]))
    low, high = estimate(added, groups=together).interval(confidence)
    return max(0.0, low), high


def metric_interval(
    metric: Metric,
    added: Sequence[ArrayLike],
    labels: Sequence[np.ndarray],
    confidence: float,
    groups: Sequence[ArrayLike] | None = None,
) -> tuple[float, float]:
    """The interval of a metric, by what the test images add to it: (S, N) of each target."""
    if metric.name == "accuracy":
        return accuracy_interval(added, confidence, groups)
    low, high = estimate_metric(metric, added, labels, groups).interval(confidence, metric.extent)
    return max(0.0, low), high


def judge(estimates: Sequence[Estimate], confidence: float, limit: float = 1.0) -> list[Difference]:
    """Each with its interval, and whether it is shown to be no chance among all of them.

    That any of them is called better or worse wrongly is at most 1 - `confidence` likely (Holm, 1979), as far
    as the p values hold: with two seeds that bring in most of the variance, it is up to twice that.
    `limit` is that of `Estimate.interval`.
    """
    adjusted = holm([each.p_value for each in estimates])
    return [
        Difference(each.mean, *each.interval(confidence, limit), each.p_value, among, among <= 1 - confidence)
        for each, among in zip(estimates, adjusted, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted for their number: the smallest times all, the next times one less; never below one before."""
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    ascending = np.maximum.accumulate(np.take(p_values, order) * factors)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(ascending, 1)
    return adjusted.tolist()


def _places(values: Sequence[np.ndarray], groups: Sequence[ArrayLike] | None) -> list[np.ndarray]:
    """For each target, the numbers (N,) of its images' groups, from 0."""
    if groups is None:
        return [np.arange(each.shape[1]) for each in values]
    return [np.unique(np.asarray(each), return_inverse=True)[1] for each in groups]


def _by_group(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Of `values` (S, N), what each group adds, as (S, G) whose mean is the same.

    A group adds the mean, and what its images are above it, in all.
    """
    number = places.max() + 1
    if number == len(places):
        return values
    mean = values.mean(axis=1, keepdims=True)
    above = np.stack([np.bincount(places, each) for each in values - mean])
    return mean + above * number / len(places)


def _over_images(values: np.ndarray, labels: np.ndarray | None, places: np.ndarray) -> tuple[float, float]:
    """The variance of the mean of `values` (N,) over test images, and how many degrees of freedom it has.

    A class of few groups that all turned out alike seems sure, and of one group always does. So each class
    has one group more, of which it is open how it turns out, as Agresti and Min (Biometrics 2005) add to
    pairs. Degrees of freedom are Satterthwaite's, a class having as many as groups; of groups of unlike size
    the large ones alone decide, where the images of each are much alike.
    """
    by_group = _by_group(values[None], places)
    number, sizes = by_group.size, np.bincount(places).astype(float)
    variance = by_group.var(ddof=1) / number
    most = max(1.0, (sizes**2).sum() ** 2 / (sizes**4).sum() - 1)
    if labels is None:
        return variance, most
    classes = np.unique(labels, return_inverse=True)[1]
    pairs, of_pair = np.unique(classes * number + places, return_inverse=True)  # of a class and a group
    above = np.bincount(of_pair, values - values.mean())
    groups = np.bincount(pairs // number)
    open_ones = 1 / (len(groups) * groups) ** 2
    parts = np.bincount(pairs // number, above**2) / len(values) ** 2 + open_ones
    freedom = parts.sum() ** 2 / (parts**2 / groups).sum()
    return variance + open_ones.sum(), min(freedom, most)


def _interaction(values: np.ndarray) -> float:
    """The variance (mean square) that neither the seed nor the image of `values` (S, N) explains."""
    left = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    return float((left**2).sum() / ((values.shape[0] - 1) * (values.shape[1] - 1)))
