"""The metrics that choose between models: which there are, and which way is better."""

import math
from dataclasses import dataclass
from typing import Literal

Selection = Literal["accuracy", "balanced_accuracy", "macro_f1", "log_loss", "auroc"]


@dataclass(frozen=True)
class Metric:
    """How good a classifier is, in one number."""

    name: Selection
    title: str
    higher_is_better: bool = True
    worst: float = 0.0  # what stands for a model whose training came to nothing

    def merit(self, value: float) -> float:
        """The value such that more is better, whichever the metric; nothing is worse than no number."""
        if math.isnan(value):
            return -math.inf
        return value if self.higher_is_better else -value


METRICS: dict[Selection, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy"),  # share of right answers
        Metric("balanced_accuracy", "balanced accuracy"),  # mean recall of the classes
        Metric("macro_f1", "macro-F1"),  # mean F1 of the classes
        Metric("log_loss", "log loss", higher_is_better=False, worst=100.0),  # mean cross-entropy in nats
        Metric("auroc", "AUROC"),  # area under the ROC curve; mean of one class against the rest
    )
}
