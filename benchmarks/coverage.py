"""How often the result page's intervals hold, and how often its verdicts are wrong. By simulation.

    python -m benchmarks.coverage    # minutes; --repeats 500 is quicker and rougher

Two methods are trained with several seeds and tested on the same images. All of it is drawn anew for each
repeat, and an interval holds if the truth over all seeds and images is in it. A model is right on an image
where the sum of these normal numbers is above zero: one for the model (its seed), one for the image (how hard
it is), one for the image and the method, one for the image and the model. `spread` is the standard deviation
of what is estimated over seeds, in points. Methods are `alike` where the same images are hard for both, so
that they differ no more than two seeds of one do (on 10 % of the images), and `unlike` where each finds
others hard (27 %).

Each cell shows three estimators, all of which pair the methods by seed and image:

- images alone: percentile bootstrap over the test images, each with its mean over the seeds.
- Satterthwaite: variance components of seeds and images, and his degrees of freedom.
- ours: `pipeline.report.intervals.estimate`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from statistics import NormalDist

import numpy as np
from scipy.stats import t as student

from benchmarks.measuring import options, print_head, print_row
from pipeline.report.contributions import contributions
from pipeline.report.intervals import accuracy_interval, estimate, judge

Interval = tuple[float, float]
Estimator = Callable[[np.ndarray], Interval]
CONFIDENCE = 0.95
RESAMPLES = 1000
RARE: tuple[tuple[int, ...], ...] = (
    (40, 1),
    (8, 2),
    (40, 10),
    (20, 20, 20, 20, 1, 1, 1, 1, 1, 1),
    (10,) * 10,
    (200, 50, 10, 5),
)
UNLIKE = (5, 10, 10, 15, 20, 20, 25, 30, 30, 35, 40, 60)
GROUPS = {"4 of 40": (40,) * 4, "12 of 25": (25,) * 12, "12 of 5 to 60": UNLIKE, "60 of 5 to 60": UNLIKE * 5}
ALIKE = (0.1, 0.5)  # of the variance of an image, what all of its group share
METHODS = 6  # on a page, the reference among them
HARDNESS = 2.0  # standard deviations of what is added up: of an image
METHOD_AND_IMAGE = {"alike": 0.05, "unlike": 1.5}
MODEL_AND_IMAGE = {"alike": 0.55, "unlike": 1.0}


@dataclass(frozen=True)
class Task:
    """What is drawn, and the truth about it."""

    kind: str
    seeds: int
    images: int
    spread: float  # of the difference of two methods over seeds, as a share of 1
    accuracy: float = 0.7  # of every method, over all seeds and images

    def draw(self, methods: int, generator: np.random.Generator) -> np.ndarray:
        """Which images are right: bool (methods, seeds, images)."""
        own, noise = METHOD_AND_IMAGE[self.kind], MODEL_AND_IMAGE[self.kind]
        normal = NormalDist()
        width = np.sqrt(HARDNESS**2 + own**2 + noise**2)
        middle = normal.inv_cdf(self.accuracy)
        seed = self.spread / np.sqrt(2) * width / normal.pdf(middle)
        return (
            middle * np.sqrt(width**2 + seed**2)
            + seed * generator.standard_normal((methods, self.seeds, 1))
            + HARDNESS * generator.standard_normal(self.images)
            + own * generator.standard_normal((methods, 1, self.images))
            + noise * generator.standard_normal((methods, self.seeds, self.images))
        ) > 0


def images_alone(values: np.ndarray, generator: np.random.Generator) -> Interval:
    """By percentile bootstrap of `values` (S, N)."""
    found, counts = np.unique(values.mean(axis=0).round(12), return_counts=True)
    images = values.shape[1]
    means = generator.multinomial(images, counts / images, size=RESAMPLES) @ found / images
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def satterthwaite(values: np.ndarray) -> Interval:
    """By his approximation, from the mean squares of `values` (S, N)."""
    seeds, images = values.shape
    mean = values.mean()
    of_seeds = images * ((values.mean(axis=1) - mean) ** 2).sum()
    of_images = seeds * ((values.mean(axis=0) - mean) ** 2).sum()
    of_both = ((values - mean) ** 2).sum() - of_seeds - of_images
    freedom = np.array([seeds - 1, images - 1, (seeds - 1) * (images - 1)])
    squares = np.array([of_seeds, of_images, of_both]) / freedom / values.size
    variance = max(squares[1], squares[0] + squares[1] - squares[2])
    margin = student.ppf((1 + CONFIDENCE) / 2, variance**2 / (squares**2 / freedom).sum()) * np.sqrt(variance)
    return mean - margin, mean + margin


def coverage(
    task: Task, repeats: int, values_of: Callable[[np.ndarray], np.ndarray], truth: float, ours: Estimator
) -> str:
    """How often each estimator's interval holds, in percent; behind ours its median half width, in points."""
    generator = np.random.default_rng(0)
    held, widths = np.zeros(3), []
    for _ in range(repeats):
        values = values_of(task.draw(2, generator))
        found = (images_alone(values, generator), satterthwaite(values), ours(values))
        held += [low <= truth <= high for low, high in found]
        widths.append(found[-1][1] - found[-1][0])
    before, his, own = 100 * held / repeats
    return f"{before:.1f}, {his:.1f}, **{own:.1f}** (± {50 * np.median(widths):.1f})"


def false_verdicts(task: Task, repeats: int) -> str:
    """Percent of pages on which any of the methods, all equal, is called better or worse than the first."""
    generator = np.random.default_rng(0)
    said = np.zeros(2)
    for _ in range(repeats):
        reference, *others = task.draw(METHODS, generator).astype(float)
        gains = [each - reference for each in others]
        ends = [images_alone(each, generator) for each in gains]
        found = judge([estimate([each]) for each in gains], CONFIDENCE)
        said += [any(low > 0 or high < 0 for low, high in ends), any(each.shown for each in found)]
    before, now = 100 * said / repeats
    return f"{before:.1f}, **{now:.1f}**"


def told_apart_by_class(sizes: tuple[int, ...], seeds: int, repeats: int) -> str:
    """Percent of pairs of equal methods with a verdict by balanced accuracy; without its guard, and ours."""
    generator, labels = np.random.default_rng(0), np.repeat(range(len(sizes)), sizes)
    task, said = Task("unlike", seeds, len(labels), 0), np.zeros(2)
    for _ in range(repeats):
        answers = np.where(task.draw(2, generator), labels, (labels + 1) % len(sizes))
        one, other = (
            np.stack([contributions("balanced_accuracy", labels, each) for each in method])
            for method in answers
        )
        found = (estimate([one - other]), estimate([one - other], [labels]))
        said += [each.p_value <= 1 - CONFIDENCE for each in found]
    before, now = 100 * said / repeats
    return f"{before:.1f}, **{now:.1f}**"


def coverage_of_groups(sizes: tuple[int, ...], seeds: int, alike: float, repeats: int) -> str:
    """How often the interval of a difference holds, in percent: each image for itself, and ours."""
    generator, groups = np.random.default_rng(0), np.repeat(range(len(sizes)), sizes)
    held = np.zeros(2)
    for _ in range(repeats):
        of_group = np.sqrt(alike) * generator.standard_normal(len(sizes))[groups]
        values = of_group + np.sqrt(1 - alike) * generator.standard_normal((seeds, len(groups)))
        found = (estimate([values]), estimate([values], groups=[groups]))
        ends = [each.interval(CONFIDENCE, limit=np.inf) for each in found]
        held += [low <= 0 <= high for low, high in ends]
    apart, together = 100 * held / repeats
    return f"{apart:.1f}, **{together:.1f}**"


def difference(right: np.ndarray) -> np.ndarray:
    return right[0].astype(float) - right[1]


def accuracy(right: np.ndarray) -> np.ndarray:
    return right[0].astype(float)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 5, 10])
    parser.add_argument("--images", type=int, nargs="+", default=[472, 2000])
    parser.add_argument("--spread", type=float, nargs="+", default=[0, 1.7], help="over seeds, in points")
    arguments = parser.parse_args()
    repeats, seeds = arguments.repeats, arguments.seeds
    settings = list(product(METHOD_AND_IMAGE, arguments.images, arguments.spread))
    print(
        f"{repeats} repeats: 95 % of them scatter by ± {196 * np.sqrt(0.95 * 0.05 / repeats):.1f} at 95 %\n"
    )

    print("Of a difference: images alone, Satterthwaite, ours (half width in points)\n")
    print_head("methods, images, spread", *(f"{count} seeds" for count in seeds))
    for kind, images, spread in settings:
        tasks = [Task(kind, count, images, spread / 100) for count in seeds]
        cells = [
            coverage(task, repeats, difference, 0.0, lambda values: estimate([values]).interval(CONFIDENCE))
            for task in tasks
        ]
        print_row(f"{kind}, {images}, {spread:g}", *cells)

    print("\nOf one method's accuracy, likewise\n")
    print_head("images, spread", *(f"{count} seeds" for count in seeds))
    for images, spread in product(arguments.images, arguments.spread):
        # A difference spreads √2 times as much as each of the two.
        tasks = [Task("alike", count, images, spread / 100 * np.sqrt(2)) for count in seeds]
        cells = [
            coverage(
                task, repeats, accuracy, task.accuracy, lambda values: accuracy_interval([values], CONFIDENCE)
            )
            for task in tasks
        ]
        print_row(f"{images}, {spread:g}", *cells)

    print("\nOf pairs of equal methods, those told apart by balanced accuracy: no image more, ours\n")
    print_head("test images of each class", *(f"{count} seeds" for count in (1, *seeds)))
    for sizes in RARE:
        cells = [told_apart_by_class(sizes, count, repeats) for count in (1, *seeds)]
        print_row(", ".join(map(str, sizes)), *cells)

    print("\nOf a difference on images in groups (of a patient, say): each for itself, ours\n")
    print_head("groups, alike", *(f"{count} seeds" for count in (1, *seeds)))
    for (name, sizes), alike in product(GROUPS.items(), ALIKE):
        cells = [coverage_of_groups(sizes, count, alike, repeats) for count in (1, *seeds)]
        print_row(f"{name}, {alike:g}", *cells)

    pages = repeats // 4  # each takes long
    print(
        f"\nOf {pages} pages with {METHODS} equal methods, those with a false verdict: images alone, ours\n"
    )
    print_head("methods, images, spread", *(f"{count} seeds" for count in seeds))
    for kind, images, spread in settings:
        tasks = [Task(kind, count, images, spread / 100) for count in seeds]
        print_row(f"{kind}, {images}, {spread:g}", *(false_verdicts(task, pages) for task in tasks))


if __name__ == "__main__":
    main()
