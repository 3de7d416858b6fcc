"""The training loop."""

import math
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.averaging import start_averaging
from stochca.callbacks import Callback, Callbacks, EvalEvent, StepEvent
from stochca.checkpoint import cloned, load_checkpoint, save_checkpoint, to_device
from stochca.composition import attend, first_phase, freeze, set_training_mode
from stochca.cross_attention import StochCA
from stochca.errors import UserError
from stochca.evaluation import Scores, predict, score
from stochca.loaders import Images, Preprocessing, keep_in_memory, training_batches
from stochca.methods import Method
from stochca.optimisation import create_optimizer, create_schedule
from stochca.precision import autocast, choose_attention_kernel, default_device, resolve_precision
from stochca.randomness import derived_seed, isolated, random_state, restore_random_state, seed_everything
from stochca.settings import Training

EVENTS_EVERY = 10  # steps between reading losses back from the device


@dataclass
class Progress:
    """Where a run stands; goes into every checkpoint."""

    step: int = 0
    best_step: int | None = None
    best_scores: tuple[float, float] = (-math.inf, -math.inf)  # accuracy, minus loss
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0  # of the whole run, interruptions left out
    step_seconds: float = 0.0  # of the optimiser steps alone
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Fitted:
    """What a run came to. The student holds the selected weights."""

    validation: Scores  # of the selected weights
    selected_step: int | None  # None: an average of several steps
    train_seconds: float
    images_per_second: float
    peak_memory_mb: float
    trainable_parameters: int
    precision: str
    device: str
    notes: list[str]


def fit(
    student: TimmModule,
    train: Images,
    validation: Images,
    *,
    method: Method,
    settings: Training,
    preprocessing: Preprocessing,
    seed: int = 0,
    work_folder: Path | None = None,
    callbacks: Sequence[Callback] = (),
    device: torch.device | None = None,
) -> Fitted:
    """Fine-tune `student`, a timm model with a fresh head, in place.

    Selection looks at `validation` and nothing else. With a `work_folder`, checkpoints go there, and a
    run that finds one continues from it, to the same weights as if it had never stopped.

    Raises:
        UserError: the method or the settings don't fit the model or the device.
    """
    device = device or default_device()
    precision = resolve_precision(settings.precision, device)
    listeners = Callbacks(callbacks)
    seed_everything(derived_seed(seed, 0))

    train, validation = keep_in_memory(train), keep_in_memory(validation)
    student.to(device)
    student.set_grad_checkpointing(settings.gradient_checkpointing)
    choose_attention_kernel(student, precision, device)
    freeze(student, method.train)
    model = attend(method.attention, student)
    optimizer = create_optimizer(student, settings)
    schedule = create_schedule(optimizer, settings)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    averaging = start_averaging(method.average, student, settings.steps)
    loss_of = make_loss(student, settings, seed)
    state = RunState(student, model, optimizer, scaler, averaging)

    progress = state.restore(work_folder, device)
    started = time.perf_counter() - progress.seconds
    if progress.step == 0:
        note = first_phase(
            method.phases, student, train, validation, preprocessing, device=device, precision=precision
        )
        progress.notes += [note] if note else []
    listeners.on_start(progress.step, settings.steps)
    for note in progress.notes:
        listeners.on_note(note)

    set_training_mode(model, student, method.train)
    trainable = [parameter for parameter in student.parameters() if parameter.requires_grad]
    batches = training_batches(train, preprocessing, settings, seed=seed, start=progress.step)
    unread: list[tuple[int, Tensor, float, float]] = []
    for images, labels in batches:
        step_started = time.perf_counter()
        step = progress.step + 1
        schedule.step_update(step)

        losses = []
        for part, part_labels in zip(
            images.chunk(settings.accumulate), labels.chunk(settings.accumulate), strict=True
        ):
            part = part.to(device, non_blocking=True)
            part_labels = part_labels.to(device, non_blocking=True)
            with autocast(precision, device):
                loss = loss_of(model, part, part_labels, step) / settings.accumulate
            scaler.scale(loss).backward()
            losses.append(loss.detach())
        if settings.clip_grad is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(trainable, settings.clip_grad)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        averaging.after_step(student, step)

        progress.step = step
        now = time.perf_counter()
        progress.step_seconds += now - step_started
        progress.seconds = now - started
        unread.append((step, torch.stack(losses).sum(), optimizer.param_groups[0]["lr"], now - step_started))
        looks = step % settings.eval_every == 0 or step == settings.steps
        keeps = step % settings.checkpoint_every == 0 or step == settings.steps
        if looks or keeps or step % EVENTS_EVERY == 0:
            report_steps(listeners, unread, settings)

        if looks:
            evaluated = averaging.evaluated(student)
            scores = look(evaluated, validation, preprocessing, device, precision)
            averaging.after_evaluation(student, step, scores.loss)
            is_best = (scores.accuracy, -scores.loss) > progress.best_scores
            if is_best:
                progress.best_step, progress.best_scores = step, (scores.accuracy, -scores.loss)
                progress.best_weights = cloned(evaluated.state_dict())
            listeners.on_eval(EvalEvent(step, settings.steps, scores.loss, scores.accuracy, is_best))

        if keeps and work_folder is not None:
            progress.seconds = time.perf_counter() - started
            listeners.on_checkpoint(state.save(work_folder, progress), step)

    averaged = averaging.finish()
    if averaged is None:
        student.load_state_dict(progress.best_weights)
        selected = Scores(loss=-progress.best_scores[1], accuracy=progress.best_scores[0])
    else:
        student.load_state_dict(averaged)
        selected = look(student, validation, preprocessing, device, precision)
    student.requires_grad_(True).eval()
    for note in averaging.notes:
        listeners.on_note(note)
    listeners.on_end()
    return Fitted(
        validation=selected,
        selected_step=progress.best_step if averaged is None else None,
        train_seconds=time.perf_counter() - started,
        images_per_second=settings.steps * settings.batch_size / progress.step_seconds,
        peak_memory_mb=peak_memory_mb(device),
        trainable_parameters=sum(parameter.numel() for parameter in trainable),
        precision=precision,
        device=device_name(device),
        notes=progress.notes + averaging.notes,
    )


@dataclass(frozen=True)
class RunState:
    """The objects whose states a checkpoint holds."""

    student: TimmModule
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    averaging: Any

    @property
    def draws(self) -> torch.Generator | None:
        return self.model.generator if isinstance(self.model, StochCA) else None

    def save(self, folder: Path, progress: Progress) -> Path:
        return save_checkpoint(
            folder,
            {
                "progress": vars(progress),
                "student": self.student.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "averaging": self.averaging.state_dict(),
                "random": random_state(),
                "draws": None if self.draws is None else self.draws.get_state(),
            },
        )

    def restore(self, folder: Path | None, device: torch.device) -> Progress:
        """Put everything back as the newest checkpoint in `folder` has it; a fresh start without one."""
        state = None if folder is None else load_checkpoint(folder)
        if state is None:
            return Progress()
        self.student.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.averaging.load_state_dict(to_device(state["averaging"], device))
        restore_random_state(state["random"])
        if self.draws is not None:
            self.draws.set_state(state["draws"])
        progress = Progress(**to_device(state["progress"], device))
        progress.best_scores = (progress.best_scores[0], progress.best_scores[1])
        return progress


def make_loss(
    student: TimmModule, settings: Training, seed: int
) -> Callable[[nn.Module, Tensor, Tensor, int], Tensor]:
    """Cross-entropy of a model on a batch, with mixup, cutmix and label smoothing where they are set."""
    augmentation = settings.augmentation
    if not (augmentation.mixup or augmentation.cutmix):
        plain = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)
        return lambda model, images, labels, step: plain(model(images).float(), labels)
    if settings.batch_size // settings.accumulate % 2:
        raise UserError(
            "mixup and cutmix pair images up: training.batch_size / training.accumulate must be even, "
            f"found {settings.batch_size // settings.accumulate}"
        )
    mix = Mixup(
        mixup_alpha=augmentation.mixup,
        cutmix_alpha=augmentation.cutmix,
        label_smoothing=settings.label_smoothing,
        num_classes=student.num_classes,
    )
    soft = SoftTargetCrossEntropy()

    def loss_of(model: nn.Module, images: Tensor, labels: Tensor, step: int) -> Tensor:
        with isolated(derived_seed(seed, step, 2)):
            images, targets = mix(images, labels)
        return soft(model(images).float(), targets)

    return loss_of


def look(
    model: nn.Module, images: Images, preprocessing: Preprocessing, device: torch.device, precision: str
) -> Scores:
    return score(*predict(model, images, preprocessing, device=device, precision=precision))


def report_steps(
    listeners: Callback, unread: list[tuple[int, Tensor, float, float]], settings: Training
) -> None:
    """Read the losses back from the device, all at once, so that steps don't wait for it one by one."""
    for step, loss, lr, seconds in unread:
        listeners.on_step(StepEvent(step, settings.steps, loss.item(), lr, settings.batch_size / seconds))
    unread.clear()


def peak_memory_mb(device: torch.device) -> float:
    """Of the device's allocator on a GPU; of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**20 if sys.platform == "darwin" else 2**10)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
