"""Which weights are kept: the best on validation, or an average (EMA, SWA, SWAD, WiSE-FT).

The training loop tells an average of every step and every evaluation; at the end it asks
for the weights. Adding a rule: one class here, its settings in `methods.py`, one line in `AVERAGES`.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from stochca._typing import TimmModule
from stochca.compute.checkpoint import cloned
from stochca.config import Average, Ema, NoAverage, Swa, Swad, WiseFt
from stochca.evaluation import Scores

Weights = dict[str, Tensor]
Look = Callable[[nn.Module], Scores]


class Averaging:
    """What the loop tells and asks; as it stands here, it keeps nothing of its own."""

    def __init__(self, config: Average, student: TimmModule, steps: int) -> None:
        self.notes: list[str] = []

    def before_training(self, student: TimmModule) -> None:
        """No step has been taken yet; a first phase is through."""

    def after_step(self, student: TimmModule, step: int) -> None:
        """`step` optimiser steps have been taken."""

    def evaluated(self, student: TimmModule) -> nn.Module:
        """The model that validation should look at."""
        return student

    def after_evaluation(self, student: TimmModule, step: int, loss: float) -> None:
        """The evaluated model has this validation loss."""

    def finish(self, student: TimmModule, best: Weights, look: Look) -> Weights | None:
        """The weights to keep; None keeps `best`, those that were best on validation.

        `look` gives a model's validation scores. It may be asked about `student` with other weights.
        """
        return None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class KeepBest(Averaging):
    """No average: the weights that were best on validation are kept."""


class ExponentialAverage(Averaging):
    """timm's exponential moving average; validation looks at it, and its own best is kept."""

    def __init__(self, config: Ema, student: TimmModule, steps: int) -> None:
        super().__init__(config, student, steps)
        self.average = ModelEmaV3(student, decay=config.decay, use_warmup=True)

    def before_training(self, student: TimmModule) -> None:
        self.average.module.load_state_dict(student.state_dict())

    def after_step(self, student: TimmModule, step: int) -> None:
        self.average.update(student, step)

    def evaluated(self, student: TimmModule) -> nn.Module:
        return self.average.module

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average.module.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average.module.load_state_dict(state["average"])


class TailAverage(Averaging):
    """SWA: the uniform mean of the weights after every step of the last part of training.

    The statistics of batch normalisation are averaged along; the paper (Izmailov et al., UAI 2018) takes
    them anew in another pass over the training images.
    """

    def __init__(self, config: Swa, student: TimmModule, steps: int) -> None:
        super().__init__(config, student, steps)
        self.start = int(config.start * steps)
        self.average = AveragedModel(student, use_buffers=True)

    @property
    def started(self) -> bool:
        return int(self.average.n_averaged) > 0

    def after_step(self, student: TimmModule, step: int) -> None:
        if step > self.start:
            self.average.update_parameters(student)

    def evaluated(self, student: TimmModule) -> nn.Module:
        return self.average.module if self.started else student

    def finish(self, student: TimmModule, best: Weights, look: Look) -> Weights | None:
        self.notes.append(f"SWA averaged the last {int(self.average.n_averaged)} steps.")
        return copy.deepcopy(self.average.module.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average.load_state_dict(state["average"])


class Segment:
    """The mean of the weights over consecutive steps."""

    def __init__(
        self, first_step: int, steps: int = 0, mean: Weights | None = None, loss: float = 0.0
    ) -> None:
        self.first_step, self.steps, self.mean, self.loss = first_step, steps, mean or {}, loss

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

    def merge(self, later: "Segment") -> None:
        self.add(later.mean, later.steps)

    def state_dict(self) -> dict[str, Any]:
        return {"first_step": self.first_step, "steps": self.steps, "loss": self.loss, "mean": self.mean}


class ValleyAverage(Averaging):
    """SWAD (Cha et al., NeurIPS 2021): the mean over every step inside the loss valley, each counted once.

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

    def finish(self, student: TimmModule, best: Weights, look: Look) -> Weights | None:
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
            "current": self.current.state_dict(),
            "recent": {str(i): segment.state_dict() for i, segment in enumerate(self.recent)},
            "valley": None if self.valley is None else self.valley.state_dict(),
            "above": None if self.above is None else self.above.state_dict(),
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


class Interpolation(Averaging):
    """WiSE-FT: (1 - alpha) of the weights at the first step plus alpha of those that validation chose."""

    def __init__(self, config: WiseFt, student: TimmModule, steps: int) -> None:
        super().__init__(config, student, steps)
        self.alphas = config.alphas
        self.start: Weights = {}

    def before_training(self, student: TimmModule) -> None:
        self.start = cloned(student.state_dict())

    def finish(self, student: TimmModule, best: Weights, look: Look) -> Weights | None:
        tuned = cloned(best)
        if len(self.alphas) == 1:
            self.notes.append(f"WiSE-FT kept alpha {self.alphas[0]:g}.")
            return interpolated(self.start, tuned, self.alphas[0])
        seen = []
        for alpha in self.alphas:
            student.load_state_dict(interpolated(self.start, tuned, alpha))
            scores = look(student)
            seen.append((scores.accuracy, -scores.loss, alpha))
        chosen = max(seen)[-1]
        accuracies = ", ".join(f"{alpha:g}: {accuracy:.3f}" for accuracy, _, alpha in seen)
        self.notes.append(f"WiSE-FT kept alpha {chosen:g}, the best on validation ({accuracies}).")
        return interpolated(self.start, tuned, chosen)

    def state_dict(self) -> dict[str, Any]:
        return {"start": self.start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.start = state["start"]


def interpolated(start: Weights, end: Weights, alpha: float) -> Weights:
    """(1 - alpha) · start + alpha · end; what is no floating-point number is taken from `end`."""
    return {
        name: start[name].lerp(value, alpha) if value.is_floating_point() else value
        for name, value in end.items()
    }


def _joined(*parts: Segment | None) -> Segment:
    """Neighbouring segments as one; the first is extended in place."""
    first, *rest = [part for part in parts if part is not None]
    for part in rest:
        first.merge(part)
    return first


AVERAGES: dict[type, type[Averaging]] = {
    NoAverage: KeepBest,
    Ema: ExponentialAverage,
    Swa: TailAverage,
    Swad: ValleyAverage,
    WiseFt: Interpolation,
}


def start_averaging(config: Average, student: TimmModule, steps: int) -> Averaging:
    return AVERAGES[type(config)](config, student, steps)
