"""The comparison itself: one row per method and target, ranked, with its difference to the reference."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.params import Params
from pipeline.results import METRIC_NAMES, Run
from pipeline.statistics import Difference, Spread, paired_bootstrap


@dataclass(frozen=True)
class Row:
    """One method on one target, over all its seeds."""

    method: str
    target: str
    rank: int  # by mean test accuracy within the target, from 1; equals keep the order of params.yaml
    reference: str  # the method that `difference` is to
    metrics: dict[str, Spread]  # every name in results.METRIC_NAMES
    difference: Difference  # of test accuracy
    confidence: float  # of its interval
    test_images: int
    runs: list[Run]  # one per seed

    @property
    def is_reference(self) -> bool:
        return self.method == self.reference

    @property
    def accuracy(self) -> float:
        return self.metrics["test_accuracy"].mean

    @property
    def verdict(self) -> str:
        """The difference in words, such as ``better than finetune``."""
        if self.is_reference:
            return "the reference"
        if self.difference.verdict == "within the noise":
            return "within the noise"
        return f"{self.difference.verdict} than {self.reference}"

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
        means = {name: spread.mean for name, spread in self.metrics.items() if name != "test_accuracy"}
        return {
            "target": self.target,
            "rank": self.rank,
            "method": self.method,
            "test_accuracy_mean": accuracy.mean,
            "test_accuracy_std": accuracy.std,
            "test_accuracy_n": accuracy.n,
            "test_images": self.test_images,
            "reference": self.reference,
            "difference": self.difference.mean,
            "difference_low": self.difference.low,
            "difference_high": self.difference.high,
            "confidence": self.confidence,
            "p_value": self.difference.p_value,
            "verdict": self.verdict,
            **means,
            "mlflow_run_ids": self.mlflow_run_ids,
            "caveat": self.caveat,
        }


def compare_runs(params: Params, runs: Sequence[Run]) -> list[Row]:
    """Aggregate over seeds, measure against the reference and rank; by target, best first."""
    rows: list[Row] = []
    for target in params.protocol.targets:
        by_method = {
            method: [run for run in runs if (run.method, run.target) == (method, target)]
            for method in params.protocol.methods
        }
        rows += _rank(params, target, by_method)
    return rows


def _rank(params: Params, target: str, by_method: dict[str, list[Run]]) -> list[Row]:
    settings = params.compare
    spreads = {
        method: {name: Spread.of([run.metrics[name] for run in runs]) for name in METRIC_NAMES}
        for method, runs in by_method.items()
    }
    ranked = sorted(by_method, key=lambda method: -spreads[method]["test_accuracy"].mean)
    reference = np.stack([run.correct for run in by_method[settings.reference]])
    rows = []
    for rank, method in enumerate(ranked, start=1):
        correct = np.stack([run.correct for run in by_method[method]])
        difference = paired_bootstrap(
            correct, reference, samples=settings.bootstrap_samples, confidence=settings.confidence
        )
        rows.append(
            Row(
                method=method,
                target=target,
                rank=rank,
                reference=settings.reference,
                metrics=spreads[method],
                difference=difference,
                confidence=settings.confidence,
                test_images=correct.shape[1],
                runs=by_method[method],
            )
        )
    return rows
