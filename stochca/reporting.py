"""What a training run says about its steps."""

import math
import time

import torch
from torch import Tensor

from stochca.callbacks import Callback, StepEvent
from stochca.distributed import mean_over_ranks
from stochca.errors import UserError
from stochca.settings import Training


def report_steps(
    listeners: Callback, unread: list[tuple[int, Tensor, float]], settings: Training, started: float
) -> float:
    """Read the losses back, all at once, so that steps don't wait for the device or other ranks one by one.

    Returns the seconds since `started`, the waiting for data and for the device included.

    Raises:
        UserError: training has diverged. Nothing of it has been evaluated or saved by then.
    """
    losses = mean_over_ranks(torch.stack([loss for _, loss, _ in unread])).tolist()
    seconds = time.perf_counter() - started
    for (step, _, lr), loss in zip(unread, losses, strict=True):
        if not math.isfinite(loss):
            raise UserError(
                f"training diverged: the loss of step {step} is {loss}; lower training.lr, or set "
                "training.clip_grad"
            )
        images_per_second = len(unread) * settings.batch_size / seconds
        listeners.on_step(StepEvent(step, settings.steps, loss, lr, images_per_second))
    return seconds


def backbone_lr(optimizer: torch.optim.Optimizer) -> float:
    """The schedule's learning rate, before each group's own factor."""
    group = next(group for group in optimizer.param_groups if group["lr_scale"] > 0)
    return float(group["lr"] / group["lr_scale"])
