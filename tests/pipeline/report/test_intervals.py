import math
import statistics
import time

import numpy as np
import pytest

from pipeline.report.intervals import Difference, Spread, paired_bootstrap


def test_spread() -> None:
    assert Spread.of([0.5]) == Spread(0.5, None, 1)
    values = [0.70, 0.74, 0.72, 0.71]
    spread = Spread.of(values)
    assert spread.mean == pytest.approx(statistics.mean(values))
    assert spread.std == pytest.approx(statistics.stdev(values))
    assert spread.n == 4


def slow_bootstrap(
    correct: np.ndarray, reference: np.ndarray, samples: int, confidence: float
) -> tuple[float, float, float]:
    """The obvious way: draw images with replacement, one resample after the other."""
    generator = np.random.default_rng(1)
    gains = [
        sum(c[i] for c in correct) / len(correct) - sum(r[i] for r in reference) / len(reference)
        for i in range(correct.shape[1])
    ]
    means = []
    for _ in range(samples):
        drawn = generator.integers(0, len(gains), len(gains))
        means.append(sum(gains[i] for i in drawn) / len(gains))
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    share = min(np.mean(np.array(means) <= 1e-12), np.mean(np.array(means) >= -1e-12))
    return float(low), float(high), min(1.0, 2 * float(share))


@pytest.mark.parametrize("seeds", [1, 3])
def test_bootstrap_against_the_obvious_loop(seeds: int) -> None:
    generator = np.random.default_rng(0)
    images, samples = 80, 4000
    hard = generator.random(images)
    correct = hard + 0.4 * generator.random((seeds, images)) < 0.95
    reference = hard + 0.4 * generator.random((seeds, images)) < 0.85
    fast = paired_bootstrap([(correct, reference)], samples=samples, confidence=0.9)
    low, high, p_value = slow_bootstrap(correct, reference, samples, 0.9)
    assert fast.mean == pytest.approx(correct.mean() - reference.mean())
    step = 1 / (images * seeds)  # means come in such steps; quantiles of two samples may differ by a few
    assert fast.low == pytest.approx(low, abs=1.5 * step)
    assert fast.high == pytest.approx(high, abs=1.5 * step)
    assert fast.p_value == pytest.approx(p_value, abs=0.02)


def test_bootstrap_against_the_normal_interval() -> None:
    """5,000 images: better on 800, worse on 700, the same on the others."""
    gains = np.array([1] * 800 + [-1] * 700 + [0] * 3500)
    correct, reference = gains == 1, gains == -1
    result = paired_bootstrap([(correct[None], reference[None])], samples=20_000, confidence=0.95)
    error = gains.std() / math.sqrt(len(gains))
    normal = statistics.NormalDist(gains.mean(), error)
    assert result.mean == pytest.approx(0.02)
    assert result.low == pytest.approx(normal.inv_cdf(0.025), abs=0.03 * error)
    assert result.high == pytest.approx(normal.inv_cdf(0.975), abs=0.03 * error)
    assert result.p_value == pytest.approx(2 * normal.cdf(0), abs=0.002)


def test_pairing_removes_what_is_hard_for_both() -> None:
    """The same accuracies, once right on the same images and once on others."""
    reference = np.arange(400) < 280
    together = np.arange(400) < 292
    apart = np.arange(400) >= 400 - 292
    near, far = (
        paired_bootstrap([(correct[None], reference[None])], samples=2000, confidence=0.95)
        for correct in (together, apart)
    )
    assert near.mean == far.mean == pytest.approx(0.03)
    assert near.verdict == "better"
    assert far.verdict == "within the noise"


def test_seeds_are_averaged_per_image_before_images_are_drawn() -> None:
    """Two seeds that miss opposite images: each image's mean is the same, so nothing is left to draw."""
    reference = np.array([[True] * 50, [False] * 50])
    correct = np.array([[True, False] * 25, [False, True] * 25])
    result = paired_bootstrap([(correct, reference)], samples=500, confidence=0.95)
    assert (result.mean, result.low, result.high, result.p_value) == (0, 0, 0, 1)


def test_a_method_against_itself_is_no_different() -> None:
    correct = np.random.default_rng(0).random((3, 100)) < 0.7
    result = paired_bootstrap([(correct, correct)], samples=200, confidence=0.95)
    assert result == Difference(0.0, 0.0, 0.0, 1.0)
    assert result.verdict == "within the noise"


def test_the_result_depends_on_the_seed_alone() -> None:
    generator = np.random.default_rng(0)
    correct, reference = generator.random((2, 1, 150)) < 0.7
    first, again, other = (
        paired_bootstrap([(correct, reference)], samples=300, confidence=0.95, seed=seed)
        for seed in (5, 5, 6)
    )
    assert first == again
    assert first != other
    shuffled = generator.permutation(150)
    assert first == paired_bootstrap(
        [(correct[:, shuffled], reference[:, shuffled])], samples=300, confidence=0.95, seed=5
    )


def test_bootstrap_over_targets_against_a_slow_one() -> None:
    """Three targets of different sizes: each counts the same, and is drawn anew within itself."""
    generator = np.random.default_rng(1)
    sizes = (30, 60, 90)
    pairs = [(generator.random((2, n)) < 0.75, generator.random((2, n)) < 0.7) for n in sizes]
    fast = paired_bootstrap(pairs, samples=20_000, confidence=0.9)
    gains = [own.mean(axis=0) - other.mean(axis=0) for own, other in pairs]
    slow = [sum(float(generator.choice(each, len(each)).mean()) for each in gains) / 3 for _ in range(20_000)]
    assert fast.mean == pytest.approx(sum(float(each.mean()) for each in gains) / 3)
    assert fast.low == pytest.approx(np.quantile(slow, 0.05), abs=0.004)
    assert fast.high == pytest.approx(np.quantile(slow, 0.95), abs=0.004)


def test_the_standard_error_is_the_spread_of_means() -> None:
    values = [0.71, 0.74, 0.69, 0.75]
    assert Spread.of(values).standard_error == pytest.approx(statistics.stdev(values) / 2)
    assert Spread.of([0.7]).standard_error is None


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.001, 0.03, "better"),
        (-0.03, -0.001, "worse"),
        (-0.01, 0.02, "within the noise"),
        (0.0, 0.02, "within the noise"),
        (-0.02, 0.0, "within the noise"),
    ],
)
def test_verdicts(low: float, high: float, verdict: str) -> None:
    assert Difference(0.0, low, high, 0.5).verdict == verdict


def test_many_test_images_cost_little() -> None:
    generator = np.random.default_rng(0)
    correct = generator.random((6, 3, 100_000)) < 0.7
    started = time.perf_counter()
    for method in correct:
        paired_bootstrap([(method, correct[0])], samples=10_000, confidence=0.95)
    assert time.perf_counter() - started < 2
