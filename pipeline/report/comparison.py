"""The comparison itself: methods ranked on each target and on average, by their difference to a reference."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from pipeline.config.params import Params
from pipeline.report.intervals import Difference, Spread, Verdict, paired_bootstrap
from pipeline.report.results import METRIC_NAMES, OTHER_CHOICES, Run


@dataclass(frozen=True)
class Standing:
    """Where a method stands among the others: on one target, or on average over several.

    On average every target counts the same: each number of a trial is its mean over the targets. The interval
    of `difference` is over test images, not over trials: those of each target are drawn anew, or once for all
    targets where these share them.
    """

    method: str
    targets: list[str]
    rank: int  # by mean test accuracy, from 1
    reference: str  # the method that `difference` is to
    difference: Difference  # of test accuracy to the reference
    behind_best: Difference  # of test accuracy to the first in rank
    confidence: float  # of the intervals
    metrics: dict[str, Spread]  # over the trials; what all runs have of what is told
    gains: list[float]  # test accuracy above the reference, by trial
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
    def accuracy(self) -> float:
        return self.metrics["test_accuracy"].mean

    @property
    def test_images(self) -> int:
        """Of a target."""
        return len(self.runs[0].predictions)

    @property
    def trials(self) -> int:
        return len(self.gains)

    @property
    def gain(self) -> Spread:
        """The difference to the reference over trials, paired by trial and target."""
        return Spread.of(self.gains)

    @property
    def difference_numbers(self) -> dict[str, float]:
        """The difference to the reference and its interval, as flat columns; shares of 1."""
        ends = {"difference_low": self.difference.low, "difference_high": self.difference.high}
        return {"difference": self.difference.mean, **ends}

    @property
    def judgement(self) -> Verdict:
        """Of the difference to the reference, by its interval.

        On average it is better or worse only if also every trial points the same way.
        """
        verdict = self.difference.verdict
        sign = -1 if verdict == "worse" else 1
        if len(self.targets) > 1 and not all(sign * gain > 0 for gain in self.gains):
            return "within the noise"
        return verdict

    @property
    def verdict(self) -> str:
        """The difference in words, such as ``better than finetune``."""
        if self.is_reference:
            return "the reference"
        if self.judgement == "within the noise":
            return "within the noise"
        return f"{self.judgement} than {self.reference}"

    @property
    def caveat(self) -> str:
        """What the interval on one target does not cover, in words."""
        if self.trials == 1:
            return "one seed: the interval covers the test images only, not the training seed"
        return f"{self.trials} seeds: the interval covers the test images, the ± the training seeds"

    @property
    def mlflow_run_ids(self) -> list[str]:
        return [run.description["mlflow_run_id"] for run in self.runs if run.description["mlflow_run_id"]]


def compare_runs(params: Params, runs: Sequence[Run]) -> list[Standing]:
    """Every method on every target of the protocol; by target, best first."""
    names = (*METRIC_NAMES, *OTHER_CHOICES)
    return [each for target in params.protocol.targets for each in _ranked(params, runs, [target], names)]


def average_over_targets(params: Params, runs: Sequence[Run]) -> list[Standing]:
    """Every method on average, best first; none where there is only one target."""
    targets = params.protocol.targets
    return _ranked(params, runs, targets, ("test_accuracy", *OTHER_CHOICES)) if len(targets) > 1 else []


def _ranked(params: Params, runs: Sequence[Run], targets: list[str], names: Sequence[str]) -> list[Standing]:
    """Aggregate over targets and trials, measure against the reference and rank, best first.

    Of equals the reference comes first, then the order of params.yaml.
    """
    protocol, settings = params.protocol, params.compare
    found = {(run.method, run.target, run.seed): run for run in runs}
    trials = {
        method: [[found[method, target, seed] for target in targets] for seed in protocol.seeds]
        for method in protocol.methods
    }
    tested = [run.predictions["id"] for run in trials[settings.reference][0]]
    shared = all(np.array_equal(ids, tested[0]) for ids in tested)

    def by_trial(method: str, name: str) -> list[float]:
        return [fmean(run.metrics[name] for run in trial) for trial in trials[method]]

    def correct(method: str) -> list[np.ndarray]:
        """Which test images were right: bool (trials, N) of each target, or of all that share them."""
        of_targets = [np.stack([run.correct for run in own]) for own in zip(*trials[method], strict=True)]
        # An image that is hard on one target is hard on the others.
        return [np.concatenate(of_targets)] if shared else of_targets

    def difference(method: str, other: str) -> Difference:
        pairs = list(zip(correct(method), correct(other), strict=True))
        return paired_bootstrap(pairs, samples=settings.bootstrap_samples, confidence=settings.confidence)

    accuracies = {method: by_trial(method, "test_accuracy") for method in protocol.methods}
    ranked = sorted(
        accuracies, key=lambda name: (-Spread.of(accuracies[name]).mean, name != settings.reference)
    )
    standings = []
    for rank, method in enumerate(ranked, start=1):
        own = [run for trial in trials[method] for run in trial]
        told = [name for name in names if all(name in run.metrics for run in own)]
        both = zip(accuracies[method], accuracies[settings.reference], strict=True)
        standings.append(
            Standing(
                method=method,
                targets=targets,
                rank=rank,
                reference=settings.reference,
                difference=difference(method, settings.reference),
                behind_best=difference(method, ranked[0]),
                confidence=settings.confidence,
                metrics={name: Spread.of(by_trial(method, name)) for name in told},
                gains=[accuracy - other for accuracy, other in both],
                runs=own,
            )
        )
    return standings
