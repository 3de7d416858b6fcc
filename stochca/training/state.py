"""Where a run stands: everything that a checkpoint holds."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.attention.stochca import StochCA
from stochca.averaging import Averaging
from stochca.compute.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint, to_device
from stochca.compute.distributed import from_main, gathered, is_main, rank
from stochca.compute.randomness import random_state, restore_random_state
from stochca.evaluation import Scores
from stochca.training.loss import Loss


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
    def best(self) -> tuple[Scores | None, int | None]:
        """What validation has shown best, and after which step; None where it was never looked at."""
        if self.best_step is None:
            return None, None
        accuracy, minus_loss = self.best_scores
        return Scores(loss=-minus_loss, accuracy=accuracy), self.best_step


@dataclass(frozen=True)
class RunState:
    """The objects whose states a checkpoint holds."""

    student: TimmModule
    model: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    averaging: Averaging
    device: torch.device

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
        progress = Progress(**to_device(state["progress"], self.device))
        return progress
