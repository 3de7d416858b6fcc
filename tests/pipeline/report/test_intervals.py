import math
import statistics
import time

import numpy as np
import pytest
from scipy import stats

from pipeline.report.contributions import contributions
from pipeline.report.intervals import (
    Difference,
    Estimate,
    Spread,
    accuracy_interval,
    estimate,
    estimate_metric,
    holm,
    judge,
    metric_interval,
)
from stochca.config.selection import SELECTIONS


def test_spread() -> None:
    assert Spread.of([0.5]) == Spread(0.5, None, 1)
    values = [0.70, 0.74, 0.72, 0.71]
    spread = Spread.of(values)
    assert spread.mean == pytest.approx(statistics.mean(values))
    assert spread.std == pytest.approx(statistics.stdev(values))
    assert spread.n == 4


def test_the_standard_error_is_the_spread_of_means() -> None:
    values = [0.71, 0.74, 0.69, 0.75]
    assert Spread.of(values).standard_error == pytest.approx(statistics.stdev(values) / 2)
    assert Spread.of([0.7]).standard_error is None


def drawn(
    seeds: int, images: int, *, spread: float = 0.0, of_images: float = 0.5, both: float = 0.3
) -> np.ndarray:
    """Values (seeds, images) about zero, with these standard deviations."""
    generator = np.random.default_rng(seeds)
    return (
        spread * generator.standard_normal((seeds, 1))
        + of_images * generator.standard_normal(images)
        + both * generator.standard_normal((seeds, images))
    )


def test_one_seed_is_the_paired_t_test_over_images() -> None:
    gains = np.random.default_rng(0).integers(-1, 2, 80) + 0.0
    found = estimate([gains[None]])
    known = stats.ttest_1samp(gains, 0)
    assert found.mean == pytest.approx(gains.mean())
    assert found.p_value == pytest.approx(known.pvalue)
    assert found.interval(0.9) == pytest.approx(tuple(known.confidence_interval(0.9)))


@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_variance_components_against_the_obvious_loops(spread: float) -> None:
    """By the sums of squares of the textbook: total = seeds + images + both."""
    values = drawn(4, 30, spread=spread)
    mean = sum(map(sum, values)) / 120
    of_seeds = 30 * sum((sum(row) / 30 - mean) ** 2 for row in values)
    of_images = 4 * sum((sum(column) / 4 - mean) ** 2 for column in values.T)
    total = sum((value - mean) ** 2 for row in values for value in row)
    seeds, images = of_seeds / 3, of_images / 29
    both = (total - of_seeds - of_images) / (3 * 29)
    s_seed, s_image = max(0.0, (seeds - both) / 30), (images - both) / 4
    found = estimate([values])
    assert found.mean == pytest.approx(mean)
    assert found.standard_error**2 == pytest.approx(s_seed / 4 + s_image / 30 + both / 120)
    assert found.freedom == (3, 29)
    assert found.share == pytest.approx(min(1, seeds / 120 / found.standard_error**2))


def test_where_only_the_seeds_differ_it_is_the_t_test_over_seeds() -> None:
    """Also on several targets, whose seeds go up and down together: more targets are no more seeds."""
    seeds = np.array([0.02, -0.01, 0.04])
    known = stats.ttest_1samp(seeds, 0)
    of_target = np.tile(seeds[:, None], 50)
    for targets in ([of_target], [of_target, of_target[:, :20]]):
        found = estimate(targets)
        assert found.p_value == pytest.approx(known.pvalue)
        assert found.interval(0.95) == pytest.approx(tuple(known.confidence_interval(0.95)))


def test_between_seeds_and_images_chances_are_weighted() -> None:
    """Two seeds that bring in a quarter of the variance, by scipy's distributions."""
    found = Estimate(0.05, 0.01, 0.25, (1, 499))
    chance = 0.25 * 2 * stats.t.sf(5, 1) + 0.75 * 2 * stats.t.sf(5, 499)
    assert found.p_value == pytest.approx(chance)
    low, high = found.interval(1 - chance)
    assert (low, high) == pytest.approx((0, 0.1), abs=1e-9)


def test_targets_count_the_same_and_have_images_of_their_own() -> None:
    sizes = (30, 60, 90)
    targets = [drawn(1, n) for n in sizes]
    found = estimate(targets)
    assert found.mean == pytest.approx(sum(each.mean() for each in targets) / 3)
    errors = [each.std(ddof=1) / math.sqrt(n) for each, n in zip(targets, sizes, strict=True)]
    assert found.standard_error == pytest.approx(math.hypot(*errors) / 3)


@pytest.mark.parametrize("seeds", [2, 3, 10])
@pytest.mark.parametrize("targets", [1, 3])
def test_intervals_hold_where_seeds_differ(seeds: int, targets: int) -> None:
    """As often as said, and those over images alone do not; benchmarks/coverage.py looks closer."""
    generator = np.random.default_rng(seeds)
    held = {"both": 0, "images": 0}
    repeats = 500
    for _ in range(repeats):
        shared = 0.02 * generator.standard_normal((seeds, 1))
        values = [
            shared + 0.2 * generator.standard_normal(200) + 0.3 * generator.standard_normal((seeds, 200))
            for _ in range(targets)
        ]
        low, high = estimate(values).interval(0.95)
        held["both"] += low <= 0 <= high
        low, high = estimate([each.mean(axis=0)[None] for each in values]).interval(0.95)
        held["images"] += low <= 0 <= high
    assert 0.92 < held["both"] / repeats < 0.995
    assert held["images"] < held["both"]


def test_the_order_of_seeds_and_images_is_nothing() -> None:
    values = drawn(3, 40, spread=0.1)
    generator = np.random.default_rng(0)
    turned = estimate([values[[2, 0, 1]][:, generator.permutation(40)]])
    assert turned.interval(0.95) == pytest.approx(estimate([values]).interval(0.95))
    low, high = estimate([values]).interval(0.95)
    assert estimate([-values]).interval(0.95) == pytest.approx((-high, -low))


def test_pairing_removes_what_is_hard_for_both() -> None:
    """The same accuracies, once right on the same images and once on others."""
    reference = np.arange(400) < 280
    together = np.arange(400) < 292
    apart = np.arange(400) >= 400 - 292
    near, far = (
        judge([estimate([np.subtract(correct, reference, dtype=float)[None]])], 0.95)[0]
        for correct in (together, apart)
    )
    assert near.mean == far.mean == pytest.approx(0.03)
    assert near.verdict == "better"
    assert far.verdict == "no difference shown"


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_method_against_itself_is_no_different(seeds: int) -> None:
    (same,) = judge([estimate([np.zeros((seeds, 100))])], 0.95)
    assert same == Difference(0.0, 0.0, 0.0, 1.0, 1.0, False)
    assert same.verdict == "no difference shown"


@pytest.mark.parametrize("seeds", [1, 3])
def test_one_image_shows_nothing(seeds: int) -> None:
    (found,) = judge([estimate([np.ones((seeds, 1))])], 0.95)
    assert (found.mean, found.low, found.high, found.p_value) == (1, -1, 1, 1)
    assert not found.shown


def test_holm_against_known_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1, 1]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_holm_rejects_as_its_steps_do() -> None:
    """The smallest against level / number, the next against level / (number - 1), until one fails."""
    for p_values in np.random.default_rng(0).random((200, 5)) ** 4:
        rejected, left = set(), sorted(range(5), key=lambda place: p_values[place])
        while left and p_values[left[0]] <= 0.05 / len(left):
            rejected.add(left.pop(0))
        assert {place for place, value in enumerate(holm(p_values)) if value <= 0.05} == rejected


def test_a_verdict_allows_for_the_others() -> None:
    """Zero is just outside of each interval; alone that shows a difference, among five it does not."""
    close, clear = (Estimate(mean, 0.01, 0.5, (500, 500)) for mean in (0.021, -0.1))
    assert judge([close], 0.95)[0].verdict == "better"
    found = judge([close] * 4 + [clear], 0.95)
    assert [each.verdict for each in found] == ["no difference shown"] * 4 + ["worse"]
    assert found[0].low > 0
    assert (found[0].low, found[0].high) == pytest.approx(stats.t.interval(0.95, 500, 0.021, 0.01))


def test_an_accuracy_keeps_within_its_bounds() -> None:
    """Against the interval of Agresti and Coull, by the normal distribution."""
    for right in (0, 3, 200, 400):
        low, high = accuracy_interval([np.arange(400)[None] < right], 0.95)
        middle = (right + 2) / 404
        margin = 1.96 * math.sqrt(middle * (1 - middle) / 404)
        assert low == pytest.approx(max(0, middle - margin), abs=1e-3)
        assert high == pytest.approx(min(1, middle + margin), abs=1e-3)


def test_many_test_images_cost_little() -> None:
    generator = np.random.default_rng(0)
    correct = generator.random((6, 3, 100_000)) < 0.7
    started = time.perf_counter()
    for method in correct:
        estimate([np.subtract(method, correct[0], dtype=float)])
    assert time.perf_counter() - started < 2


BALANCED = SELECTIONS["balanced_accuracy"]


def test_where_classes_count_the_same_each_has_one_image_more() -> None:
    """By the obvious loop over classes; the counts of Agresti and Min, but about the plain difference."""
    labels = np.repeat([0, 1, 2], [12, 5, 1])
    generator = np.random.default_rng(0)
    one, other = (np.where(generator.random(18) < 0.7, labels, (labels + 1) % 3) for _ in range(2))
    variance = 0.0
    for kind in range(3):
        gains = [
            float(a == kind) - float(b == kind)
            for a, b, c in zip(one, other, labels, strict=True)
            if c == kind
        ]
        mean = sum(gains) / len(gains)
        variance += (sum((gain - mean) ** 2 for gain in gains) + 1) / len(gains) ** 2 / 9
    added = [contributions("balanced_accuracy", labels, each) for each in (one, other)]
    found = estimate_metric(BALANCED, [(added[0] - added[1])[None]], [labels])
    # The spread over images is told with one degree of freedom less.
    assert found.standard_error**2 == pytest.approx(variance, rel=0.05)
    accuracy = estimate_metric(SELECTIONS["accuracy"], [(added[0] - added[1])[None]], [labels])
    assert accuracy == estimate([(added[0] - added[1])[None]])


def test_one_image_of_a_rare_class_decides_nothing() -> None:
    labels = np.repeat([0, 1], [40, 1])
    one, other = labels.copy(), labels.copy()
    one[:10], other[2:12] = 1, 1  # both wrong on ten of the common ones
    other[-1] = 0
    added = [contributions("balanced_accuracy", labels, each)[None] for each in (one, other)]
    (found,) = judge([estimate_metric(BALANCED, [added[0] - added[1]], [labels])], 0.95)
    assert found.mean == pytest.approx(0.5)
    assert found.low < 0 < found.high
    assert not found.shown
    # All right is not sure either: of 20, Clopper and Pearson's exact interval begins at 0.83.
    perfect = np.repeat([0, 1], [20, 2000])
    low, high = metric_interval(
        BALANCED, [contributions("balanced_accuracy", perfect, perfect)[None]], [perfect], 0.95
    )
    assert low == pytest.approx(1 - (1 - 0.83) / 2, abs=0.05)
    assert high == 1


@pytest.mark.parametrize("sizes", [(20, 20, 20, 3, 3), (40, 10), (30, 1)])
def test_equal_methods_are_rarely_told_apart(sizes: tuple[int, ...]) -> None:
    labels = np.repeat(range(len(sizes)), sizes)
    generator = np.random.default_rng(0)
    shown = 0
    for _ in range(300):
        right = generator.random((2, len(labels))) < 0.7
        added = [
            contributions("balanced_accuracy", labels, np.where(each, labels, -1) % len(sizes))
            for each in right
        ]
        shown += estimate_metric(BALANCED, [(added[0] - added[1])[None]], [labels]).p_value <= 0.05
    assert shown <= 0.08 * 300


def answers_of_groups(
    sizes: np.ndarray, seeds: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Differences (seeds, N) about zero of images that are alike within their group, and the groups (N,)."""
    groups = np.repeat(range(len(sizes)), sizes)
    alike = generator.standard_normal(len(sizes))[groups]
    return alike + generator.standard_normal((seeds, len(groups))), groups


def test_the_variance_over_groups_by_the_obvious_loop() -> None:
    sizes = (1, 7, 8, 3, 5)
    values, groups = answers_of_groups(np.array(sizes), 1, np.random.default_rng(0))
    total = sum((values[0, groups == each] - values.mean()).sum() ** 2 for each in range(5))
    found = estimate([values], groups=[[f"patient {each}" for each in groups]])
    assert found.mean == pytest.approx(values.mean())
    assert found.standard_error**2 == pytest.approx(5 / 4 * total / 24**2)
    effective = sum(size**2 for size in sizes) ** 2 / sum(size**4 for size in sizes)
    assert found.freedom == pytest.approx((effective - 1,) * 2)


@pytest.mark.parametrize("labels", [None, np.repeat([0, 1, 2], [8, 10, 2])])
def test_an_image_that_is_there_five_times_counts_once(labels: np.ndarray | None) -> None:
    values, places = drawn(3, 20, spread=0.2), np.repeat(range(20), 5)
    kinds = (None, None) if labels is None else ([labels], [labels[places]])
    once, often = estimate([values], kinds[0]), estimate([values[:, places]], kinds[1], [places])
    assert (often.mean, often.standard_error, often.share) == pytest.approx(
        (once.mean, once.standard_error, once.share)
    )
    assert often.freedom == pytest.approx(once.freedom)
    right = values > 0
    expected = accuracy_interval([right], 0.95)
    assert accuracy_interval([right[:, places]], 0.95, [places]) == pytest.approx(expected)


@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_hold_where_images_come_in_groups(seeds: int) -> None:
    """And those that take the images for independent do not: a dozen patients of very unlike size."""
    generator = np.random.default_rng(seeds)
    sizes = np.array([5, 10, 10, 15, 20, 20, 25, 30, 30, 35, 40, 60])
    held = {"groups": 0, "images": 0}
    for _ in range(500):
        values, groups = answers_of_groups(sizes, seeds, generator)
        for name, together in (("groups", [groups]), ("images", None)):
            low, high = estimate([values], groups=together).interval(0.95, limit=math.inf)
            held[name] += low <= 0 <= high
    assert held["groups"] / 500 > 0.92
    assert held["images"] / 500 < 0.7
