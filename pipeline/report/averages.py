"""The comparison over several targets: one average per method, paired by trial and target."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

import numpy as np

from pipeline.config.params import Params
from pipeline.report.comparison import Row, Standing, correctness
from pipeline.report.results import OTHER_CHOICES
from pipeline.report.statistics import Difference, Spread, Verdict, paired_bootstrap_over_targets

ACCURACIES = ("test_accuracy", *OTHER_CHOICES)


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


def average_over_targets(params: Params, rows: Sequence[Row]) -> list[Average]:
    """One average per method, best first; none where there is only one target."""
    if len(params.protocol.targets) == 1:
        return []
    reference = params.compare.reference
    of_method = {name: [row for row in rows if row.method == name] for name in params.protocol.methods}
    trials = {name: _by_trial(of_method[name], "test_accuracy") for name in of_method}

    tested = [row.runs[0].predictions["id"] for row in of_method[reference]]
    shared = all(np.array_equal(ids, tested[0]) for ids in tested)

    def difference(method: str, other: str) -> Difference:
        pairs = [
            (correctness(own.runs), correctness(its.runs))
            for own, its in zip(of_method[method], of_method[other], strict=True)
        ]
        if shared:  # an image that is hard on one target is hard on the others
            pairs = [(np.concatenate([own for own, _ in pairs]), np.concatenate([its for _, its in pairs]))]
        return paired_bootstrap_over_targets(
            pairs, samples=params.compare.bootstrap_samples, confidence=params.compare.confidence
        )

    ranked = sorted(of_method, key=lambda name: (-fmean(trials[name]), name != reference))
    return [
        Average(
            method=name,
            rank=rank,
            reference=reference,
            difference=difference(name, reference),
            behind_best=difference(name, ranked[0]),
            confidence=params.compare.confidence,
            metrics={
                metric: Spread.of(_by_trial(of_method[name], metric))
                for metric in ACCURACIES
                if all(metric in row.metrics for row in of_method[name])
            },
            rows=of_method[name],
            gains=[own - other for own, other in zip(trials[name], trials[reference], strict=True)],
        )
        for rank, name in enumerate(ranked, start=1)
    ]


def _by_trial(rows: Sequence[Row], metric: str) -> list[float]:
    """The mean over the targets of each trial."""
    trials = zip(*([run.metrics[metric] for run in row.runs] for row in rows), strict=True)
    return [fmean(trial) for trial in trials]
