"""The comparison itself: methods ranked on each target and on average, by their difference to a reference."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

import numpy as np

from pipeline.config.params import Params
from pipeline.report.intervals import Difference, Spread, Verdict, paired_bootstrap
from pipeline.report.results import METRIC_NAMES, OTHER_CHOICES, Run

Pairs = Sequence[tuple[np.ndarray, np.ndarray]]  # correctness of two methods (seeds, N), by target


@dataclass(frozen=True)
class Standing:
    """Where a method stands among the others, on one target or on average."""

    method: str
    rank: int  # by mean test accuracy, from 1
    reference: str  # the method that `difference` is to
    difference: Difference  # of test accuracy to the reference
    behind_best: Difference  # of test accuracy to the first in rank
    confidence: float  # of the intervals
    metrics: dict[str, Spread]  # what all runs have of results.METRIC_NAMES and OTHER_CHOICES

    @property
    def is_reference(self) -> bool:
        return self.method == self.reference

    @property
    def accuracy(self) -> float:
        return self.metrics["test_accuracy"].mean

    @property
    def difference_numbers(self) -> dict[str, float]:
        """The difference to the reference and its interval, as flat columns; shares of 1."""
        difference = self.difference
        return {
            "difference": difference.mean,
            "difference_low": difference.low,
            "difference_high": difference.high,
        }

    @property
    def judgement(self) -> Verdict:
        """Of the difference to the reference."""
        return self.difference.verdict

    @property
    def verdict(self) -> str:
        """The difference in words, such as ``better than finetune``."""
        if self.is_reference:
            return "the reference"
        if self.judgement == "within the noise":
            return "within the noise"
        return f"{self.judgement} than {self.reference}"


@dataclass(frozen=True)
class Row(Standing):
    """One method on one target, over all its seeds."""

    target: str
    test_images: int
    runs: list[Run]  # one per seed

    @property
    def caveat(self) -> str:
        """What the interval does not cover, in words."""
        seeds = len(self.runs)
        if seeds == 1:
            return "one seed: the interval covers the test images only, not the training seed"
        return f"{seeds} seeds: the interval covers the test images, the ± the training seeds"

    @property
    def mlflow_run_ids(self) -> list[str]:
        return [run.description["mlflow_run_id"] for run in self.runs if run.description["mlflow_run_id"]]

    def record(self) -> dict[str, Any]:
        """The row as flat columns; accuracies and differences are shares of 1."""
        accuracy = self.metrics["test_accuracy"]
        names = (*METRIC_NAMES[1:], *(name for name in OTHER_CHOICES if name in self.metrics))
        means = {name: self.metrics[name].mean if name in self.metrics else None for name in names}
        return {
            "target": self.target,
            "rank": self.rank,
            "method": self.method,
            "test_accuracy_mean": accuracy.mean,
            "test_accuracy_std": accuracy.std,
            "test_accuracy_n": accuracy.n,
            "test_images": self.test_images,
            "reference": self.reference,
            **self.difference_numbers,
            "confidence": self.confidence,
            "p_value": self.difference.p_value,
            "verdict": self.verdict,
            "behind_best": self.behind_best.mean,
            "behind_best_low": self.behind_best.low,
            "behind_best_high": self.behind_best.high,
            **means,
            "mlflow_run_ids": self.mlflow_run_ids,
            "caveat": self.caveat,
        }


@dataclass(frozen=True)
class Average(Standing):
    """One method over all targets, every target counting the same.

    `metrics` holds accuracies: of each trial the mean over the targets, and their spread over the trials.
    The interval of `difference` is over test images, not over trials: those of each target are drawn anew,
    or once for all targets where these share them.
    """

    rows: list[Row]  # one per target
    gains: list[float]  # to the reference, of each trial the mean over the targets

    @cached_property
    def gain(self) -> Spread:
        """The difference to the reference over trials, paired by trial and target."""
        return Spread.of(self.gains)

    @property
    def trials(self) -> int:
        return len(self.gains)

    @property
    def judgement(self) -> Verdict:
        """Better or worse only if the interval leaves zero out and every trial points the same way."""
        verdict = self.difference.verdict
        sign = {"better": 1, "worse": -1}.get(verdict, 0)
        return verdict if all(sign * gain > 0 for gain in self.gains) else "within the noise"

    def record(self) -> dict[str, Any]:
        """The average as flat columns; accuracies and differences are shares of 1."""
        accuracies: dict[str, float | None] = {}
        for name, spread in self.metrics.items():
            accuracies |= {f"{name}_mean": spread.mean, f"{name}_std": spread.std}
            accuracies[f"{name}_standard_error"] = spread.standard_error
        return {
            "rank": self.rank,
            "method": self.method,
            "targets": [row.target for row in self.rows],
            "trials": self.trials,
            **accuracies,
            "reference": self.reference,
            **self.difference_numbers,
            "difference_standard_error": self.gain.standard_error,
            "confidence": self.confidence,
            "verdict": self.verdict,
        }


def compare_runs(params: Params, runs: Sequence[Run]) -> list[Row]:
    """Aggregate over seeds, measure against the reference and rank; by target, best first."""
    return [row for target in params.protocol.targets for row in _compare_on(params, target, runs)]


def _compare_on(params: Params, target: str, runs: Sequence[Run]) -> list[Row]:
    of_method = {
        method: [run for run in runs if (run.method, run.target) == (method, target)]
        for method in params.protocol.methods
    }
    metrics = {
        method: {
            name: Spread.of([run.metrics[name] for run in own])
            for name in (*METRIC_NAMES, *OTHER_CHOICES)
            if all(name in run.metrics for run in own)
        }
        for method, own in of_method.items()
    }
    correct = {method: _correct(own) for method, own in of_method.items()}

    def pairs(method: str, other: str) -> Pairs:
        return [(correct[method], correct[other])]

    return [
        Row(**place, target=target, test_images=correct[method].shape[1], runs=of_method[method])
        for method, place in _ranked(params, metrics, pairs)
    ]


def average_over_targets(params: Params, rows: Sequence[Row]) -> list[Average]:
    """One average per method, best first; none where there is only one target."""
    if len(params.protocol.targets) == 1:
        return []
    reference = params.compare.reference
    of_method = {name: [row for row in rows if row.method == name] for name in params.protocol.methods}
    trials = {
        method: {
            metric: _by_trial(own, metric)
            for metric in ("test_accuracy", *OTHER_CHOICES)
            if all(metric in row.metrics for row in own)
        }
        for method, own in of_method.items()
    }
    metrics = {
        method: {metric: Spread.of(values) for metric, values in own.items()}
        for method, own in trials.items()
    }
    tested = [row.runs[0].predictions["id"] for row in of_method[reference]]
    shared = all(np.array_equal(ids, tested[0]) for ids in tested)

    def pairs(method: str, other: str) -> Pairs:
        own, its = ([_correct(row.runs) for row in of_method[name]] for name in (method, other))
        if shared:  # an image that is hard on one target is hard on the others
            return [(np.concatenate(own), np.concatenate(its))]
        return list(zip(own, its, strict=True))

    def gains(method: str) -> list[float]:
        both = zip(trials[method]["test_accuracy"], trials[reference]["test_accuracy"], strict=True)
        return [own - other for own, other in both]

    return [
        Average(**place, rows=of_method[method], gains=gains(method))
        for method, place in _ranked(params, metrics, pairs)
    ]


def _ranked(
    params: Params,
    metrics: Mapping[str, Mapping[str, Spread]],
    pairs: Callable[[str, str], Pairs],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every method with what a `Standing` holds of it, best first.

    Of equals the reference comes first, then the order of params.yaml.
    """
    reference, confidence = params.compare.reference, params.compare.confidence

    def difference(method: str, other: str) -> Difference:
        samples = params.compare.bootstrap_samples
        return paired_bootstrap(pairs(method, other), samples=samples, confidence=confidence)

    ranked = sorted(metrics, key=lambda name: (-metrics[name]["test_accuracy"].mean, name != reference))
    for rank, method in enumerate(ranked, start=1):
        yield (
            method,
            {
                "method": method,
                "rank": rank,
                "reference": reference,
                "difference": difference(method, reference),
                "behind_best": difference(method, ranked[0]),
                "confidence": confidence,
                "metrics": metrics[method],
            },
        )


def _correct(runs: Sequence[Run]) -> np.ndarray:
    """Which test images each run got right: bool (runs, N)."""
    return np.stack([run.correct for run in runs])


def _by_trial(rows: Sequence[Row], metric: str) -> list[float]:
    """The mean over the targets of each trial."""
    trials = zip(*([run.metrics[metric] for run in row.runs] for row in rows), strict=True)
    return [fmean(trial) for trial in trials]
