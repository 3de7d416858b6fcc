"""A model of one weight, trained by hand under an average."""

from typing import Any

import torch
from torch import nn

from stochca.config import Average, build
from stochca.evaluation import Scores


class Scalar(nn.Module):
    """A model of one weight; step s leaves it at s squared, so that every mean is unmistakable."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))


def weight_after(step: int) -> float:
    return float(step**2)


def train(
    config: Average, losses: list[float], steps_per_evaluation: int = 3, interrupt: bool = False
) -> tuple[Any, Scalar]:
    student = Scalar()
    steps = steps_per_evaluation * len(losses)
    averaging = build(config, student, steps)
    for step in range(1, steps + 1):
        student.weight.data.fill_(weight_after(step))
        averaging.after_step(student, step)
        if step % steps_per_evaluation == 0:
            averaging.after_evaluation(student, step, losses[step // steps_per_evaluation - 1])
        if interrupt:  # a checkpoint after every step
            state = averaging.state_dict()
            averaging = build(config, student, steps)
            averaging.load_state_dict(state)
    return averaging, student


def mean_of(steps: list[int]) -> float:
    return sum(weight_after(step) for step in steps) / len(steps)


def never(model: nn.Module) -> Scores:
    raise AssertionError("nothing is to be chosen on validation")


def finished(averaging: Any) -> Any:
    student = Scalar()
    return averaging.finish(student, student.state_dict(), never)
