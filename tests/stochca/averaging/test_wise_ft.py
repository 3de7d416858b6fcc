"""WiSE-FT: the weights between two points."""

from typing import Any

import pytest
import torch

from stochca.config import WiseFt, build
from stochca.evaluation import Scores
from tests.stochca.averaging.scalar import Scalar, never


def wise_ft(alpha: float | tuple[float, ...], interrupt: bool = False) -> tuple[Any, Scalar]:
    """Trained from 2 to 10, with a checkpoint in between."""
    student = Scalar()
    averaging: Any = build(WiseFt(alpha=alpha), student, 1)
    student.weight.data.fill_(2)  # as a first phase leaves it
    averaging.before_training(student)
    if interrupt:
        state = averaging.state_dict()
        averaging = build(WiseFt(alpha=alpha), Scalar(), 1)
        averaging.load_state_dict(state)
    student.weight.data.fill_(10)
    averaging.after_step(student, 1)
    return averaging, student


@pytest.mark.parametrize("interrupt", [False, True])
@pytest.mark.parametrize(("alpha", "expected"), [(0.0, 2.0), (0.25, 4.0), (1.0, 10.0)])
def test_wise_ft_is_between_the_first_step_and_the_last(
    alpha: float, expected: float, interrupt: bool
) -> None:
    averaging, student = wise_ft(alpha, interrupt)
    assert averaging.evaluated(student) is student
    assert float(averaging.finish(student, student.state_dict(), never)["weight"]) == pytest.approx(expected)


def test_wise_ft_takes_the_alpha_that_is_best_on_validation() -> None:
    averaging, student = wise_ft((0.0, 0.25, 0.5, 1.0))

    def evaluate(model: Any) -> Scores:  # as accurate at 4 as at 6, but surer at 4
        weight = model.weight.item()
        return Scores(loss=weight, accuracy=0.75 if weight in (4.0, 6.0) else 0.5)

    assert float(averaging.finish(student, student.state_dict(), evaluate)["weight"]) == pytest.approx(4.0)
    assert averaging.notes == [
        "WiSE-FT kept alpha 0.25, the best on validation (0: 0.500, 0.25: 0.750, 0.5: 0.750, 1: 0.500)."
    ]


def test_wise_ft_keeps_counters() -> None:
    """What is no floating-point number has no value halfway."""

    class Counting(Scalar):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("steps", torch.tensor(3))

    student: Any = Counting()
    averaging: Any = build(WiseFt(alpha=0.5), student, 1)
    averaging.before_training(student)
    student.steps.fill_(8)
    assert averaging.finish(student, student.state_dict(), never)["steps"].item() == 8
