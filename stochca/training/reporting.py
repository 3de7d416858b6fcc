"""What a training run says about its steps."""

import time

import torch
from torch import Tensor

from stochca.compute.distributed import mean_over_ranks
from stochca.config.training import Training
from stochca.training.callbacks import Callback, StepEvent


def report_steps(
    listeners: Callback, unread: list[tuple[int, Tensor, float]], settings: Training, started: float
) -> float:
    """Read the losses back, all at once, so that steps don't wait for the device or other ranks one by one.

    Returns the seconds since `started`, the waiting for data and for the device included.
    """
    if not unread:
        return time.perf_counter() - started
    losses = mean_over_ranks(torch.stack([loss for _, loss, _ in unread])).tolist()
    seconds = time.perf_counter() - started
    for (step, _, lr), loss in zip(unread, losses, strict=True):
        images_per_second = len(unread) * settings.batch_size / seconds
        listeners.on_step(StepEvent(step, settings.steps, loss, lr, images_per_second))
    return seconds


def backbone_lr(optimizer: torch.optim.Optimizer) -> float:
    """The schedule's learning rate, before each group's own factor."""
    group = next(group for group in optimizer.param_groups if group["lr_scale"] > 0)
    return float(group["lr"] / group["lr_scale"])
