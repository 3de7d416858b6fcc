"""Where a run stands: everything that a checkpoint holds."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.attention.stochca import StochCA
from stochca.averaging import Averaging, start_averaging
from stochca.compute.checkpoint import CHECKPOINT, cloned, load_checkpoint, save_checkpoint, to_device
from stochca.compute.distributed import from_main, gathered, is_main, rank
from stochca.compute.randomness import random_state, restore_random_state
from stochca.config import Average
from stochca.config.training import Training
from stochca.evaluation import Scores
from stochca.training.loss import Loss
from stochca.training.optimisation import create_optimizer, create_schedule


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
    skipped: int = 0  # steps, because their gradients were not finite

    @property
    def best(self) -> Scores | None:
        """The best that validation has shown; None where nothing was evaluated."""
        accuracy, minus_loss = self.best_scores
        return None if self.best_step is None else Scores(loss=-minus_loss, accuracy=accuracy)

    def keep_if_best(self, step: int, scores: Scores, weights: dict[str, Tensor]) -> bool:
        """Copy the weights, if these are the best scores so far; returns whether they are."""
        found = scores.accuracy, -scores.loss
        if is_best := found > self.best_scores:
            self.best_step, self.best_scores, self.best_weights = step, found, cloned(weights)
        return is_best


@dataclass(frozen=True)
class RunState:
    """The objects whose states a checkpoint holds."""

    student: TimmModule
    model: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    schedule: CosineLRScheduler  # of the step alone: nothing of it goes into a checkpoint
    averaging: Averaging
    device: torch.device

    @classmethod
    def at_start(
        cls,
        student: TimmModule,
        model: nn.Module,
        loss: Loss,
        average: Average,
        settings: Training,
        precision: str,
        device: torch.device,
    ) -> "RunState":
        """As it is before the first step; `model` trains `student`, and is it or is around it."""
        optimizer = create_optimizer(student, settings, loss)
        schedule = create_schedule(optimizer, settings)
        scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        averaging = start_averaging(average, student, settings.steps)
        return cls(student, model, loss, optimizer, scaler, schedule, averaging, device)

    @property
    def draws(self) -> StochCA | None:
        """What draws blocks, if the method does."""
        return self.model if isinstance(self.model, StochCA) else None

    def save(self, folder: Path, progress: Progress) -> Path:
        """Rank 0 writes; every rank's random state goes in."""
        random = gathered(random_state(self.device))
        if not is_main():
            return folder / CHECKPOINT
        return save_checkpoint(
            folder,
            {
                "progress": vars(progress),
                "student": self.student.state_dict(),
                "loss": self.loss.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "averaging": self.averaging.state_dict(),
                "random": random,
                "draws": None if self.draws is None else self.draws.generator.get_state(),
                "tally": None if self.draws is None else self.draws.tally.state_dict(),
            },
        )

    def restore(self, folder: Path | None) -> Progress:
        """Put everything back as the newest checkpoint in `folder` has it; a fresh start without one.

        Rank 0 reads. Ranks that the checkpoint does not know keep the random state that they have.
        """
        state = load_checkpoint(folder) if folder is not None and is_main() else None
        state = from_main(state, self.device)
        if state is None:
            return Progress()
        self.student.load_state_dict(state["student"])
        self.loss.load_state_dict(to_device(state["loss"], self.device))
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.averaging.load_state_dict(to_device(state["averaging"], self.device))
        if rank() < len(state["random"]):
            restore_random_state(state["random"][rank()], self.device)
        if self.draws is not None:
            self.draws.generator.set_state(state["draws"])
            self.draws.tally.load_state_dict(state["tally"])
        return Progress(**to_device(state["progress"], self.device))
