"""What a method took for what, on the test images of one run."""

from dataclasses import dataclass

import numpy as np

from pipeline.report.results import Run

LARGEST = 25  # classes of a matrix that can be read; of more only the mistakes are listed
LISTED = 5  # mistakes


@dataclass(frozen=True)
class Mistake:
    """How often one class was taken for another."""

    actual: str
    predicted: str
    images: int
    out_of: int  # images of the actual class


@dataclass(frozen=True)
class Confusion:
    run: Run
    counts: np.ndarray  # (actual classes, predicted classes)

    @classmethod
    def of(cls, run: Run) -> "Confusion":
        counts = np.zeros((len(run.classes), len(run.classes)), dtype=int)
        np.add.at(counts, (run.predictions["label"], run.predictions["prediction"]), 1)
        return cls(run, counts)

    @property
    def drawable(self) -> bool:
        return len(self.counts) <= LARGEST

    @property
    def shares(self) -> np.ndarray:
        """The counts as shares of the images of the actual class."""
        return self.counts / self.counts.sum(axis=1, keepdims=True).clip(min=1)

    @property
    def mistakes(self) -> list[Mistake]:
        """The most frequent ones, most frequent first."""
        wrong = self.counts - np.diag(np.diag(self.counts))
        frequent = np.argsort(-wrong, axis=None, kind="stable")[:LISTED]
        classes, totals = self.run.classes, self.counts.sum(axis=1)
        return [
            Mistake(classes[row], classes[column], int(wrong[row, column]), int(totals[row]))
            for row, column in zip(*np.unravel_index(frequent, wrong.shape), strict=True)
            if wrong[row, column]
        ]
