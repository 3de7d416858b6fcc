"""The steps of a run, whatever it trains: gradients, the optimiser, losses read back, checkpoints."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.attention.stochca import StochCA
from stochca.averaging.averaging import Averaging
from stochca.compute.checkpoint import CHECKPOINT, cloned, load_checkpoint, save_checkpoint, to_device
from stochca.compute.devices import peak_memory_mb
from stochca.compute.distributed import (
    average_gradients,
    averaging_gradients,
    data_parallel,
    from_main,
    gathered,
    is_main,
    mean_over_ranks,
    rank,
    share_statistics,
)
from stochca.compute.precision import autocast
from stochca.compute.randomness import random_state, restore_random_state
from stochca.compute.sampled import are_of_one_model
from stochca.config import Average, build
from stochca.config.timetable import Timetable
from stochca.config.training import Training
from stochca.errors import UserError
from stochca.evaluation import Scores
from stochca.training.callbacks import Callback, StepEvent
from stochca.training.deciding import Deciding, check_unchanged
from stochca.training.loss import Loss
from stochca.training.optimisation import create_optimizer, create_schedule

EVENTS_EVERY = 10  # steps between reading losses back from the device
SKIPPED_IN_A_ROW = 5  # steps whose gradients are not finite, that end training
SKIPPED_IN_A_ROW_FP16 = 30  # the scale of fp16's losses is found by skipping steps
SHOWN = 8  # images that the sentence then names


@dataclass
class Progress:
    """Where a run stands; goes into every checkpoint."""

    step: int = 0
    best_step: int | None = None
    best_evaluation: dict[str, Any] = field(default_factory=dict)  # its `Scores`
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0  # of the whole run, interruptions left out
    step_seconds: float = 0.0  # of the optimiser steps alone
    notes: list[str] = field(default_factory=list)
    skipped: int = 0  # steps, because their gradients were not finite
    peak_memory_mb: float = 0.0  # of the processes until the last checkpoint

    @property
    def best(self) -> Scores | None:
        """The best that validation has shown; None where nothing was evaluated."""
        return None if self.best_step is None else Scores(**self.best_evaluation)

    @property
    def skip_notes(self) -> list[str]:
        """What a person should know at the end of the steps that were left out."""
        if not self.skipped:
            return []
        steps = "step was" if self.skipped == 1 else "steps were"
        return [f"{self.skipped} {steps} skipped, because gradients were not finite."]

    def keep_if_best(self, step: int, scores: Scores, weights: dict[str, Tensor]) -> bool:
        """Copy the weights, if these are the best scores so far; returns whether they are."""
        best = self.best
        if is_best := best is None or scores.merit > best.merit:
            self.best_step, self.best_evaluation, self.best_weights = step, asdict(scores), cloned(weights)
        return is_best


class Loop:
    """Takes the steps from where the newest checkpoint stands to the last, or until patience ends.

    Args:
        student: what learns; `model` trains it, and is it or is around it.
        listeners: hear of every step and every checkpoint.
        work_folder: where checkpoints are found and go; None reads and writes none.
        decides: what decides the weights; a checkpoint of anything else is refused.
        names_of_step: the images of a step, by name, for the sentence that ends a diverged run.
    """

    def __init__(
        self,
        student: TimmModule,
        model: nn.Module,
        loss: Loss,
        average: Average,
        settings: Training,
        timetable: Timetable,
        *,
        precision: str,
        device: torch.device,
        listeners: Callback,
        work_folder: Path | None,
        decides: Deciding,
        names_of_step: Callable[[int], Sequence[str]],
    ) -> None:
        self.student, self.model, self.loss = student, model, loss
        self.settings, self.timetable = settings, timetable
        self.precision, self.device = precision, device
        self.listeners, self.work_folder, self.decides = listeners, work_folder, decides
        self.optimizer = create_optimizer(student, settings, loss)
        # Of the step alone: in no checkpoint.
        self.schedule = create_schedule(self.optimizer, settings, timetable)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.averaging: Averaging = build(average, student, timetable.steps)
        self.stochca = model if isinstance(model, StochCA) else None  # what draws blocks
        self.progress = self._restored()
        # `time.perf_counter()` of the start, had the run never been interrupted.
        self.started = time.perf_counter() - self.progress.seconds
        self.trainable = [p for p in student.parameters() if p.requires_grad]
        self.names_of_step = names_of_step
        self.skipped_in_a_row = 0  # above 0, what is there should not take a good checkpoint's place
        self.unread: list[tuple[int, Tensor, float]] = []  # steps whose losses are still on the device
        self.window_started = self.started

    def run(
        self, batches: Iterable[tuple[Tensor, Tensor]], evaluate: Callable[[int], None] | None = None
    ) -> None:
        """One step per batch; `evaluate` is called where the timetable says so.

        Raises:
            UserError: training diverged.
        """
        timetable = self.timetable
        if self.has_stalled:  # interrupted just then
            return
        model = data_parallel(self.model)
        self.window_started = time.perf_counter()
        for images, labels in batches:
            step = self._step(model, images, labels)
            evaluates, saves = step in timetable.evaluations, step in timetable.checkpoints
            if evaluates or saves or step % EVENTS_EVERY == 0:
                self._report_steps()
            if evaluate is not None and evaluates:
                evaluate(step)
            if (saves or self.has_stalled) and not self.skipped_in_a_row and self.work_folder is not None:
                self.progress.seconds = time.perf_counter() - self.started
                self.progress.peak_memory_mb = self.peak_memory_mb
                self.listeners.on_checkpoint(self._save(self.work_folder), step)
            if not self.unread:
                self.window_started = time.perf_counter()
            if self.has_stalled:
                return

    @property
    def has_stalled(self) -> bool:
        """Whether the last `patience` evaluations were all no better than one before them."""
        best, now = self.progress.best_step, self.progress.step
        if best is None or self.settings.patience is None:
            return False
        return sum(best < step <= now for step in self.timetable.evaluations) >= self.settings.patience

    @property
    def peak_memory_mb(self) -> float:
        """Of this rank, also before an interruption; see `stochca.compute.devices`."""
        return max(self.progress.peak_memory_mb, peak_memory_mb(self.device))

    def _step(self, model: nn.Module, images: Tensor, labels: Tensor) -> int:
        """Images (B, 3, size, size) and labels (B,) of this rank; returns the step, counted from 1."""
        step = self.progress.step + 1
        self.schedule.step_update(step)
        if self.stochca is not None:
            self.stochca.set_progress(step, self.timetable.steps)
        loss = self._backward(model, images, labels, step)
        average_gradients(self.loss.parameters)
        share_statistics(self.student)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.trainable, self.settings.clip_grad or math.inf)
        if math.isfinite(norm.item()):
            self.skipped_in_a_row = 0
            self.scaler.step(self.optimizer)
            self.averaging.after_step(self.student, step)
            self.unread.append((step, loss, self._learning_rate()))
        else:
            self._skip(step)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.step = step
        return step

    def _backward(self, model: nn.Module, images: Tensor, labels: Tensor, step: int) -> Tensor:
        """Add up the gradients of all micro-batches; returns the loss, a scalar on the device."""
        parts = self.settings.accumulate
        losses: list[Tensor] = []
        for part, part_labels in zip(images.chunk(parts), labels.chunk(parts), strict=True):
            part = part.to(self.device, non_blocking=True)
            part_labels = part_labels.to(self.device, non_blocking=True)
            with averaging_gradients(model, now=len(losses) == parts - 1):
                with autocast(self.precision, self.device):
                    loss = self.loss(model, part, part_labels, step) / parts
                self.scaler.scale(loss).backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def _skip(self, step: int) -> None:
        """Count a step that is left out; raises `UserError` if it is the last of too many in a row."""
        self.progress.skipped += 1
        self.skipped_in_a_row += 1
        limit = SKIPPED_IN_A_ROW_FP16 if self.scaler.is_enabled() else SKIPPED_IN_A_ROW
        if self.skipped_in_a_row < limit:
            return
        images = self.names_of_step(step)
        more = f" and {len(images) - SHOWN} more" if len(images) > SHOWN else ""
        raise UserError(
            f"training diverged: the gradients of {limit} steps in a row, {step - limit + 1} to {step}, were "
            "not finite; lower training.lr, or set training.clip_grad. The last step saw "
            f"{', '.join(images[:SHOWN])}{more}"
        )

    def _report_steps(self) -> None:
        """Read the losses back, all at once: steps don't wait for the device or other ranks one by one."""
        losses: list[float] = []
        if self.unread:
            losses = mean_over_ranks(torch.stack([loss for _, loss, _ in self.unread])).tolist()
        seconds = time.perf_counter() - self.window_started  # waiting for data and device included
        images_per_second = len(losses) * self.settings.batch_size / seconds
        for (step, _, lr), loss in zip(self.unread, losses, strict=True):
            self.listeners.on_step(StepEvent(step, self.timetable.steps, loss, lr, images_per_second))
        self.progress.step_seconds += seconds
        self.unread.clear()

    def _learning_rate(self) -> float:
        """The schedule's, before each group's own factor."""
        group = next(group for group in self.optimizer.param_groups if group["lr_scale"] > 0)
        return float(group["lr"] / group["lr_scale"])

    def _save(self, folder: Path) -> Path:
        """Rank 0 writes; every rank's random state goes in."""
        random = gathered(random_state(self.device))
        if not is_main():
            return folder / CHECKPOINT
        return save_checkpoint(
            folder,
            {
                "decides": self.decides,
                "progress": vars(self.progress),
                "student": self.student.state_dict(),
                "loss": self.loss.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "averaging": self.averaging.state_dict(),
                "random": random,
                "teacher": None if self.stochca is None else self.stochca.get_extra_state(),
                "draws": None if self.stochca is None else self.stochca.generator.get_state(),
                "tally": None if self.stochca is None else self.stochca.tally.state_dict(),
            },
        )

    def _check_teacher(self, sample: Tensor | None) -> None:
        """Raise `UserError` where the checkpoint's teacher was another; an old checkpoint does not say."""
        if self.stochca is None or sample is None:
            return
        if not are_of_one_model(sample, self.stochca.get_extra_state()):
            raise UserError(
                f"{self.work_folder} holds a checkpoint of training beside another teacher; give the student "
                "and teacher that this training started with, or another work_folder"
            )

    def _restored(self) -> Progress:
        """Put everything back as the newest checkpoint has it; a fresh start without one.

        Rank 0 reads. Ranks that the checkpoint does not know keep the random state that they have.
        """
        state = load_checkpoint(self.work_folder) if self.work_folder is not None and is_main() else None
        state = from_main(state, self.device)
        if state is None:
            return Progress()
        self._check_teacher(state.get("teacher"))
        check_unchanged(state.get("decides", {}), self.decides, self.work_folder)
        self.student.load_state_dict(state["student"])
        self.loss.load_state_dict(to_device(state["loss"], self.device))
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.averaging.load_state_dict(to_device(state["averaging"], self.device))
        if rank() < len(state["random"]):
            restore_random_state(state["random"][rank()], self.device)
        if self.stochca is not None:
            self.stochca.generator.set_state(state["draws"])
            self.stochca.tally.load_state_dict(state["tally"])
        return Progress(**to_device(state["progress"], self.device))
