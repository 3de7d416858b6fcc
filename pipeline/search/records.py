"""What is known of each trial."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.search.space import Values, described

METRIC = "validation_accuracy"  # the mean over the seeds: what is searched for


@dataclass
class Record:
    """A trial, as far as it has come."""

    id: str  # Ray's
    number: int  # in the order in which they were drawn, from 1
    values: Values
    accuracies: list[float] = field(default_factory=list)  # on validation, in the order of the seeds
    mean: float | None = None  # of these; None: nothing was reported yet
    std: float | None = None  # None: a single seed
    step: int = 0
    seconds: float = 0.0  # of training, all seeds together
    node: str = ""
    stopped_early: bool = False
    finished_at: float | None = None  # seconds since the search began, interruptions left out
    problem: str | None = None

    @property
    def name(self) -> str:
        return described(self.values)

    def update(self, result: Mapping[str, Any]) -> bool:
        """Take over what the trial reported; says whether that is new."""
        if not result.get("step", 0) > self.step:
            return False
        self.accuracies, self.mean, self.std = result["accuracies"], result[METRIC], result["std"]
        self.step, self.seconds, self.node = result["step"], result["seconds"], result["node"]
        self.problem = result["problem"]
        return True
