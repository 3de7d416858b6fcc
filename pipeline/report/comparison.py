"""The comparison itself: one row per method and target, ranked, with its difference to the reference."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.config.params import Params
from pipeline.report.results import METRIC_NAMES, OTHER_CHOICES, Run
from pipeline.report.statistics import Difference, Spread, Verdict, paired_bootstrap


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


def correctness(runs: Sequence[Run]) -> np.ndarray:
    """Which test images each run got right: bool (runs, N)."""
    return np.stack([run.correct for run in runs])


def compare_runs(params: Params, runs: Sequence[Run]) -> list[Row]:
    """Aggregate over seeds, measure against the reference and rank; by target, best first."""
    of_cell: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        of_cell.setdefault((run.target, run.method), []).append(run)
    rows: list[Row] = []
    for target in params.protocol.targets:
        by_method = {method: of_cell[target, method] for method in params.protocol.methods}
        rows += _rank(params, target, by_method)
    return rows


def _rank(params: Params, target: str, by_method: dict[str, list[Run]]) -> list[Row]:
    reference = params.compare.reference
    metrics = {
        method: {
            name: Spread.of([run.metrics[name] for run in runs])
            for name in (*METRIC_NAMES, *OTHER_CHOICES)
            if all(name in run.metrics for run in runs)
        }
        for method, runs in by_method.items()
    }
    correct = {method: correctness(runs) for method, runs in by_method.items()}

    def merit(method: str) -> tuple[float, bool]:
        """Of equals the reference comes first, then the order of params.yaml."""
        return -metrics[method]["test_accuracy"].mean, method != reference

    def difference(method: str, other: str) -> Difference:
        return paired_bootstrap(
            correct[method],
            correct[other],
            samples=params.compare.bootstrap_samples,
            confidence=params.compare.confidence,
        )

    ranked = sorted(by_method, key=merit)
    return [
        Row(
            method=method,
            target=target,
            rank=rank,
            reference=reference,
            metrics=metrics[method],
            difference=difference(method, reference),
            behind_best=difference(method, ranked[0]),
            confidence=params.compare.confidence,
            test_images=correct[method].shape[1],
            runs=by_method[method],
        )
        for rank, method in enumerate(ranked, start=1)
    ]
