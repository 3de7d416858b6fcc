"""What is known of each trial. It is kept in a file beside Ray Tune's state, and so outlives a kill."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from pipeline.runtime.files import write_json
from pipeline.search.space import Values, described

REACHED = "reached"  # Ray's name of what is searched for: the mean of `protocol.selection` over the seeds


@dataclass(frozen=True)
class Rung:
    """What a trial has reached after so many steps."""

    step: int
    values: Sequence[float]  # of the metric that selects, on validation, in the order of the seeds

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def std(self) -> float | None:
        """The sample standard deviation, as `compare` takes it; None for a single seed."""
        return None if len(self.values) == 1 else statistics.stdev(self.values)


@dataclass(frozen=True)
class Record:
    """A trial, as far as it has come."""

    id: str  # Ray's
    number: int  # in the order in which they were drawn, from 1
    values: Values
    rungs: Sequence[Rung] = ()
    seconds: float = 0.0  # of training, all seeds together
    node: str = ""
    stopped_early: bool = False
    finished_at: float | None = None  # seconds since the search began, interruptions left out
    problem: str | None = None

    @property
    def name(self) -> str:
        return described(self.values)

    @property
    def step(self) -> int:
        return self.rungs[-1].step if self.rungs else 0

    @property
    def reached(self) -> Rung:
        """The last rung; only where one was reported."""
        return self.rungs[-1]

    @property
    def is_complete(self) -> bool:
        """Whether it ran to its end."""
        return self.finished_at is not None and not self.stopped_early and not self.problem


class Records:
    """All trials of a search. One that goes on finds those from before, and its clock where it stood.

    Args:
        file: where they are kept.
        steps: of a trial that runs to its end.
    """

    def __init__(self, file: Path, steps: int) -> None:
        self.file, self.steps = file, steps
        kept: dict[str, Any] = {"seconds": 0.0, "trials": []}
        if file.exists():
            kept = json.loads(file.read_text(encoding="utf-8"))
        self.began = monotonic() - kept["seconds"]
        self.trials: dict[int, Record] = {}
        for trial in kept["trials"]:
            rungs = [Rung(**rung) for rung in trial.pop("rungs")]
            self.trials[trial["number"]] = Record(**trial, rungs=rungs)

    def started(self, trial: str, number: int, values: Values) -> None:
        """A trial starts, or is started again."""
        record = self.trials.get(number)
        if record is None or record.id != trial:  # drawn again, where a kill came before Ray Tune's snapshot
            record = Record(trial, number, values)
        elif record.problem:  # that what failed is tried again
            record = replace(record, problem=None, finished_at=None)
        self._keep(record)

    def reported(self, number: int, result: Mapping[str, Any]) -> None:
        """What `Trial.step` gave; what is known already changes nothing."""
        record = self.trials[number]
        if result.get("step", 0) < max(1, record.step):
            return
        known = {name: result[name] for name in ("seconds", "node", "problem")}
        self._keep(replace(record, rungs=[Rung(**rung) for rung in result["rungs"]], **known))

    def finished(self, number: int, error: Exception | None = None) -> None:
        """A trial came to its end, was stopped, or failed with an error."""
        record = self.trials[number]
        lines = str(error).strip().splitlines() if error else []
        problem = record.problem or (lines[-1].strip() if lines else None)
        self._keep(
            replace(
                record,
                problem=problem,
                stopped_early=not problem and record.step < self.steps,
                finished_at=self._now() if record.finished_at is None else record.finished_at,
            )
        )

    def _keep(self, record: Record) -> None:
        self.trials[record.number] = record
        write_json(self.file, {"seconds": self._now(), "trials": [*map(asdict, self.trials.values())]})

    def _now(self) -> float:
        return monotonic() - self.began
