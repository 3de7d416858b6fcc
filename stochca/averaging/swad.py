"""SWAD (Cha et al., NeurIPS 2021): the mean over every step inside the loss valley."""

from dataclasses import dataclass, field
from typing import Any

import torch

from stochca._typing import TimmModule
from stochca.averaging.averaging import Averaging, Evaluate, Weights
from stochca.config.averaging.swad import Swad


@dataclass
class Segment:
    """The mean of the weights over consecutive steps, and the validation loss at their end."""

    first_step: int
    steps: int = 0
    loss: float = 0.0
    mean: Weights = field(default_factory=dict)

    @property
    def last_step(self) -> int:
        return self.first_step + self.steps - 1

    @torch.no_grad()
    def add(self, weights: Weights, steps: int = 1) -> None:
        """Take in weights that are themselves the mean of so many steps."""
        self.steps += steps
        for name, value in weights.items():
            if name not in self.mean:
                self.mean[name] = value.detach().clone()
            elif value.is_floating_point():
                self.mean[name].lerp_(value, steps / self.steps)


class ValleyAverage(Averaging):
    """The mean over every step inside the loss valley, each counted once.

    Training is cut into segments, one per evaluation, each with the mean of its steps'
    weights and the validation loss at its end. The valley starts with the oldest of the last
    `n_converge` segments once its loss is the smallest of them; the threshold is their mean loss
    times (1 + `tolerance_ratio`). The valley ends before `n_tolerance` consecutive segments above the
    threshold, or with training; trailing segments above the threshold are left out.
    """

    def __init__(self, config: Swad, student: TimmModule, steps: int) -> None:
        super().__init__(config, student, steps)
        self.config = config
        self.current = Segment(first_step=1)
        self.recent: list[Segment] = []  # before the valley: candidates for its start
        self.threshold: float | None = None
        self.valley: Segment | None = None
        self.above: Segment | None = None  # after the valley's last segment below the threshold
        self.segments_above = 0

    @property
    def ended(self) -> bool:
        return self.segments_above >= self.config.n_tolerance

    def after_step(self, student: TimmModule, step: int) -> None:
        if not self.ended:
            self.current.add(student.state_dict())

    def after_evaluation(self, student: TimmModule, step: int, loss: float) -> None:
        if self.ended:
            return
        segment, self.current = self.current, Segment(first_step=step + 1)
        segment.loss = loss
        if self.threshold is not None:
            self._continue_valley(segment)
            return
        self.recent = [*self.recent, segment][-self.config.n_converge :]
        losses = [candidate.loss for candidate in self.recent]
        if len(losses) == self.config.n_converge and losses[0] == min(losses):
            self.threshold = sum(losses) / len(losses) * (1 + self.config.tolerance_ratio)
            for candidate in self.recent:
                self._continue_valley(candidate)
            self.recent = []

    def _continue_valley(self, segment: Segment) -> None:
        assert self.threshold is not None
        if self.ended:
            return
        if segment.loss > self.threshold:
            self.segments_above += 1
            self.above = _joined(self.above, segment)
        else:
            self.valley = _joined(self.valley, self.above, segment)
            self.above, self.segments_above = None, 0

    def finish(self, student: TimmModule, best: Weights, evaluate: Evaluate) -> Weights | None:
        if self.valley is None:
            last = self.recent[-1] if self.recent else self.current
            self.notes.append(
                f"SWAD found no valley: no {self.config.n_converge} evaluations in a row began with "
                f"their lowest loss; the mean of the last segment, steps {last.first_step} to "
                f"{last.last_step}, was kept."
            )
            return last.mean
        self.notes.append(
            f"SWAD averaged steps {self.valley.first_step} to {self.valley.last_step}, the loss valley."
        )
        return self.valley.mean

    def state_dict(self) -> dict[str, Any]:
        return {
            "current": vars(self.current),
            "recent": {str(i): vars(segment) for i, segment in enumerate(self.recent)},
            "valley": None if self.valley is None else vars(self.valley),
            "above": None if self.above is None else vars(self.above),
            "threshold": self.threshold,
            "segments_above": self.segments_above,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.current = Segment(**state["current"])
        self.recent = [Segment(**state["recent"][str(i)]) for i in range(len(state["recent"]))]
        self.valley = None if state["valley"] is None else Segment(**state["valley"])
        self.above = None if state["above"] is None else Segment(**state["above"])
        self.threshold = state["threshold"]
        self.segments_above = state["segments_above"]


def _joined(*parts: Segment | None) -> Segment:
    """Neighbouring segments as one; the first is extended in place."""
    first, *rest = [part for part in parts if part is not None]
    for part in rest:
        first.add(part.mean, part.steps)
    return first
