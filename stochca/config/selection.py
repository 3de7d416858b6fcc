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
    extent: float = 1.0  # from the best to the worst that is told apart
    in_percent: bool = True  # how people read it
    by_class: bool = False  # classes count the same, however many images they have

    @property
    def worst(self) -> float:
        """What stands for a model whose training came to nothing."""
        return 0.0 if self.higher_is_better else self.extent

    @property
    def sign(self) -> int:
        """Of a difference to what is worse."""
        return 1 if self.higher_is_better else -1

    def merit(self, value: float) -> float:
        """The value such that more is better, whichever the metric; nothing is worse than no number."""
        if math.isnan(value):
            return -math.inf
        return self.sign * value


SELECTIONS: dict[Selection, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy"),  # share of right answers
        Metric("balanced_accuracy", "balanced accuracy", by_class=True),  # mean recall of the classes
        Metric("macro_f1", "macro-F1", by_class=True),  # mean F1 of the classes
        # Mean cross-entropy in nats.
        Metric("log_loss", "log loss", higher_is_better=False, extent=100.0, in_percent=False),
        # Area under the ROC curve; of several classes the mean of one against the rest.
        Metric("auroc", "AUROC", by_class=True),
    )
}
