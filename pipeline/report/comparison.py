"""The comparison itself: methods ranked on each target and on average, by their difference to a reference."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import numpy as np

from pipeline.config.params import Params
from pipeline.report.intervals import Difference, Estimate, Spread, estimate_metric, judge, metric_interval
from pipeline.report.results import METRIC_NAMES, OTHER_CHOICES, Run
from stochca.config.selection import SELECTIONS, Metric


@dataclass(frozen=True)
class Standing:
    """Where a method stands among the others: on one target, or on average over several.

    On average every target counts the same: each number of a trial is its mean over the targets. Intervals
    cover other test images of the same targets and, of several trials, other training seeds.
    """

    method: str
    targets: list[str]
    metric: Metric  # that ranks
    rank: int  # by the mean of the metric on the test images, from 1
    reference: str  # the method that `difference` is to
    difference: Difference  # by how much it is better than the reference
    behind_best: Difference  # by how much it is better than the first in rank, which it is not
    interval: tuple[float, float]  # of the metric
    confidence: float  # of the intervals
    metrics: dict[str, Spread]  # over the trials; what all runs have of what is told
    gains: list[float]  # by how much it is better than the reference, by trial
    runs: list[Run]  # by trial (a seed each), then by target

    @property
    def target(self) -> str:
        """The only one."""
        (target,) = self.targets
        return target

    @property
    def is_reference(self) -> bool:
        return self.method == self.reference

    @property
    def tested(self) -> Spread:
        """The metric on the test images."""
        return self.metrics[f"test_{self.metric.name}"]

    @property
    def value(self) -> float:
        return self.tested.mean

    @property
    def test_images(self) -> int:
        """Of all targets."""
        return sum(len(run.predictions) for run in self._tests)

    @property
    def test_groups(self) -> int:
        """Of the test images; as many, where each is on its own."""
        return sum(run.predictions["group"].nunique() for run in self._tests)

    @cached_property
    def _tests(self) -> list[Run]:
        return with_own_tests(self.runs[: len(self.targets)])

    @property
    def trials(self) -> int:
        return len(self.gains)

    @property
    def gain(self) -> Spread:
        """By how much it is better than the reference over trials, paired by trial and target."""
        return Spread.of(self.gains)

    @property
    def difference_numbers(self) -> dict[str, float]:
        """By how much it is better than the reference, with the interval, as flat columns."""
        ends = {"difference_low": self.difference.low, "difference_high": self.difference.high}
        return {"difference": self.difference.mean, **ends}

    @property
    def verdict(self) -> str:
        """The difference in words, such as ``better than finetune``."""
        return "the reference" if self.is_reference else self.difference.verdict_on(self.reference)

    @property
    def caveat(self) -> str:
        """What the interval covers, in words."""
        together = ""
        if self.test_groups < self.test_images:
            images, groups = f"{self.test_images:,} test images", f"{self.test_groups:,} groups"
            together = f"; the {images} are of {groups}, each of which counts as one"
        if self.trials == 1:
            covered = "the test images of this training run; another seed may differ"
            return f"with one seed, the interval covers {covered}{together}"
        covered = "other seeds as well as other test images"
        return f"with {self.trials} seeds, the interval covers {covered}{together}"

    @property
    def mlflow_run_ids(self) -> list[str]:
        return [run.description["mlflow_run_id"] for run in self.runs if run.description["mlflow_run_id"]]


def with_own_tests(trial: Sequence[Run]) -> list[Run]:
    """The runs of a trial, one per target; the first alone where all of them share the test images."""
    first, *others = trial
    shared = all(np.array_equal(run.predictions["id"], first.predictions["id"]) for run in others)
    return [first] if shared else [first, *others]


def compare_runs(params: Params, runs: Sequence[Run]) -> list[Standing]:
    """Every method on every target of the protocol; by target, best first."""
    names = (*METRIC_NAMES, *OTHER_CHOICES)
    return [each for target in params.protocol.targets for each in _ranked(params, runs, [target], names)]


def average_over_targets(params: Params, runs: Sequence[Run]) -> list[Standing]:
    """Every method on average, best first; none where there is only one target."""
    targets = params.protocol.targets
    names = dict.fromkeys(("test_accuracy", f"test_{params.protocol.selection}", *OTHER_CHOICES))
    return _ranked(params, runs, targets, list(names)) if len(targets) > 1 else []


def _ranked(params: Params, runs: Sequence[Run], targets: list[str], names: Sequence[str]) -> list[Standing]:
    """Aggregate over targets and trials, measure against the reference and rank, best first.

    Of equals the reference comes first, then the order of params.yaml.
    """
    protocol, settings = params.protocol, params.compare
    metric = SELECTIONS[protocol.selection]
    found = {(run.method, run.target, run.seed): run for run in runs}
    trials = {
        method: [[found[method, target, seed] for target in targets] for seed in protocol.seeds]
        for method in protocol.methods
    }
    tests = with_own_tests(trials[settings.reference][0])
    shared = len(tests) == 1
    labels = [run.predictions["label"].to_numpy() for run in tests]
    groups = [run.predictions["group"].to_numpy() for run in tests]

    def by_trial(method: str, name: str) -> list[float]:
        return [fmean(run.metrics[name] for run in trial) for trial in trials[method]]

    def by_image(method: str) -> list[np.ndarray]:
        """What test images add: (trials, N) of each target, or their mean where all share them."""
        of_targets = [
            np.stack([run.contributions for run in own]) for own in zip(*trials[method], strict=True)
        ]
        # An image that is hard on one target is hard on the others.
        return [np.mean(of_targets, axis=0)] if shared else of_targets

    def gain(method: str, other: str) -> Estimate:
        pairs = zip(added[method], added[other], strict=True)
        return estimate_metric(
            metric, [metric.sign * (own - others) for own, others in pairs], labels, groups
        )

    def measured_against(other: str) -> dict[str, Difference]:
        rivals = [method for method in protocol.methods if method != other]
        found = judge([gain(method, other) for method in rivals], settings.confidence, metric.extent)
        return {other: Difference(0.0, 0.0, 0.0), **dict(zip(rivals, found, strict=True))}

    added = {method: by_image(method) for method in protocol.methods}
    values = {method: by_trial(method, f"test_{metric.name}") for method in protocol.methods}
    ranked = sorted(
        values,
        key=lambda name: (-metric.merit(Spread.of(values[name]).mean), name != settings.reference),
    )
    differences, behind = measured_against(settings.reference), measured_against(ranked[0])
    standings = []
    for rank, method in enumerate(ranked, start=1):
        own = [run for trial in trials[method] for run in trial]
        told = [name for name in names if all(name in run.metrics for run in own)]
        both = zip(values[method], values[settings.reference], strict=True)
        standings.append(
            Standing(
                method=method,
                targets=targets,
                metric=metric,
                rank=rank,
                reference=settings.reference,
                difference=differences[method],
                behind_best=behind[method],
                interval=metric_interval(metric, added[method], labels, settings.confidence, groups),
                confidence=settings.confidence,
                metrics={name: Spread.of(by_trial(method, name)) for name in told},
                gains=[metric.sign * (value - other) for value, other in both],
                runs=own,
            )
        )
    return standings
