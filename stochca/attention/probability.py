"""The probability that each block cross-attends: per block, limited to some blocks, following a schedule."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from stochca.config import Schedule
from stochca.errors import UserError


def one_per_block(
    prob: float | Sequence[float], num_blocks: int, blocks: Sequence[int] | None = None
) -> Tensor:
    """Probabilities (num_blocks,); 0 for all but `blocks`, where these are given.

    Raises:
        UserError: `prob` is no probability or has the wrong length, or a block does not exist.
    """
    try:
        values = [float(prob)] * num_blocks if isinstance(prob, int | float) else [float(p) for p in prob]
    except (TypeError, ValueError):
        raise UserError(f"prob must be one probability, or one per block, found {prob!r}") from None
    if len(values) != num_blocks:
        raise UserError(
            f"prob has {len(values)} values, but the model has {num_blocks} blocks; "
            f"give one value or {num_blocks}"
        )
    if not all(0 <= value <= 1 for value in values):
        raise UserError(f"prob must be between 0 and 1, found {prob}")
    probs = torch.tensor(values, dtype=torch.float64)
    if blocks is not None:
        if wrong := [i for i in blocks if not 0 <= i < num_blocks]:
            raise UserError(
                f"blocks {wrong} don't exist: the model has {num_blocks} blocks, 0 to {num_blocks - 1}"
            )
        chosen = torch.zeros(num_blocks, dtype=torch.bool)
        chosen[list(blocks)] = True
        probs = probs.where(chosen, 0)
    return probs


def schedule_of(given: Schedule | str | None) -> Schedule:
    """A schedule that may be given by its name; raises `UserError` where it is none."""
    try:
        return Schedule(given) if isinstance(given, str) else given or Schedule()  # type: ignore[arg-type]
    except ValueError as error:
        raise UserError(str(error)) from None


def scheduled(prob: Tensor, schedule: Schedule, step: int, steps: int) -> Tensor:
    """The probabilities (num_blocks,) of step `step` out of `steps`, counted from 1.

    A block whose probability is 0 stays at 0 whatever the schedule.
    """
    passed = (step - 1) / max(1, steps - 1)  # 0 at the first step, 1 at the last
    if schedule.name == "constant":
        return prob
    if schedule.name == "warmup":
        share = 0.1 if schedule.share is None else schedule.share
        return prob * min(1.0, passed / share)
    left = 1 - passed if schedule.name == "linear" else (1 + math.cos(math.pi * passed)) / 2
    end = 0.0 if schedule.end is None else schedule.end
    return torch.where(prob > 0, end + (prob - end) * left, 0.0)
