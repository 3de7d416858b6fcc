"""The steps of a run, whatever it trains: gradients, the optimiser, losses read back, checkpoints."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from stochca.compute.distributed import (
    average_gradients,
    averaging_gradients,
    data_parallel,
    mean_over_ranks,
    share_statistics,
)
from stochca.compute.precision import autocast
from stochca.config.training import Training
from stochca.training.callbacks import Callback, StepEvent
from stochca.training.composition import set_progress
from stochca.training.divergence import Divergence
from stochca.training.state import Progress, RunState

EVENTS_EVERY = 10  # steps between reading losses back from the device


class Loop:
    """Takes the steps from where `progress` stands to the last.

    Args:
        listeners: hear of every step and every checkpoint.
        work_folder: where checkpoints go; None writes none.
        names_of_step: the images of a step, by name, for the sentence that ends a diverged run.
        started: `time.perf_counter()` of the start, had the run never been interrupted.
    """

    def __init__(
        self,
        state: RunState,
        progress: Progress,
        settings: Training,
        *,
        precision: str,
        listeners: Callback,
        work_folder: Path | None,
        names_of_step: Callable[[int], Sequence[str]],
        started: float,
    ) -> None:
        self.state, self.progress, self.settings, self.precision = state, progress, settings, precision
        self.listeners, self.work_folder, self.started = listeners, work_folder, started
        self.model = data_parallel(state.model)
        self.trainable = [p for p in state.student.parameters() if p.requires_grad]
        fp16 = state.scaler.is_enabled()
        self.divergence = Divergence(names_of_step, fp16=fp16, skipped=progress.skipped)
        self.unread: list[tuple[int, Tensor, float]] = []  # steps whose losses are still on the device
        self.window_started = time.perf_counter()

    def run(
        self, batches: Iterable[tuple[Tensor, Tensor]], evaluate: Callable[[int], None] | None = None
    ) -> None:
        """One step per batch; `evaluate` is called every `eval_every` steps, and after the last.

        Raises:
            UserError: training diverged.
        """
        settings = self.settings
        for images, labels in batches:
            step = self._step(images, labels)
            is_last = step == settings.steps
            evaluates = evaluate is not None and (step % settings.eval_every == 0 or is_last)
            saves = (step % settings.checkpoint_every == 0 or is_last) and not self.divergence.going_on
            if evaluates or saves or is_last or step % EVENTS_EVERY == 0:
                self._report_steps()
            if evaluate is not None and evaluates:
                evaluate(step)
            if saves and self.work_folder is not None:
                self.progress.seconds = time.perf_counter() - self.started
                self.listeners.on_checkpoint(self.state.save(self.work_folder, self.progress), step)
            if not self.unread:
                self.window_started = time.perf_counter()

    def _step(self, images: Tensor, labels: Tensor) -> int:
        """Images (B, 3, size, size) and labels (B,) of this rank; returns the step, counted from 1."""
        state, settings = self.state, self.settings
        step = self.progress.step + 1
        state.schedule.step_update(step)
        set_progress(state.model, step, settings.steps)
        loss = self._backward(images, labels, step)
        average_gradients(state.loss.parameters)
        share_statistics(state.student)
        state.scaler.unscale_(state.optimizer)
        norm = nn.utils.clip_grad_norm_(self.trainable, settings.clip_grad or math.inf)
        if not self.divergence.skips(norm, step):
            state.scaler.step(state.optimizer)
            state.averaging.after_step(state.student, step)
            self.unread.append((step, loss, self._learning_rate()))
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        self.progress.step, self.progress.skipped = step, self.divergence.skipped
        return step

    def _backward(self, images: Tensor, labels: Tensor, step: int) -> Tensor:
        """Add up the gradients of all micro-batches; returns the loss, a scalar on the device."""
        parts, device = self.settings.accumulate, self.state.device
        losses: list[Tensor] = []
        for part, part_labels in zip(images.chunk(parts), labels.chunk(parts), strict=True):
            part = part.to(device, non_blocking=True)
            part_labels = part_labels.to(device, non_blocking=True)
            with averaging_gradients(self.model, now=len(losses) == parts - 1):
                with autocast(self.precision, device):
                    loss = self.state.loss(self.model, part, part_labels, step) / parts
                self.state.scaler.scale(loss).backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def _report_steps(self) -> None:
        """Read the losses back, all at once: steps don't wait for the device or other ranks one by one."""
        if self.unread:
            losses = mean_over_ranks(torch.stack([loss for _, loss, _ in self.unread])).tolist()
        else:
            losses = []
        seconds = time.perf_counter() - self.window_started  # waiting for data and device included
        images_per_second = len(losses) * self.settings.batch_size / seconds
        for (step, _, lr), loss in zip(self.unread, losses, strict=True):
            self.listeners.on_step(StepEvent(step, self.settings.steps, loss, lr, images_per_second))
        self.progress.step_seconds += seconds
        self.unread.clear()

    def _learning_rate(self) -> float:
        """The schedule's, before each group's own factor."""
        groups = self.state.optimizer.param_groups
        group = next(group for group in groups if group["lr_scale"] > 0)
        return float(group["lr"] / group["lr_scale"])
