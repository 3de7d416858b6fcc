"""EMA against the recursion."""

from typing import Any

import pytest

from stochca.config import Ema, build
from tests.stochca.averaging.scalar import Scalar, finished, train, weight_after


def test_ema_equals_the_recursion() -> None:
    """With timm's warm-up: the decay of step s is min(decay, 1 - s ** -2/3)."""
    for interrupt in (False, True):
        averaging, student = train(Ema(decay=0.8), [1.0, 1.0], interrupt=interrupt)
        expected = 0.0
        for step in range(1, 7):
            decay = min(0.8, 1 - step ** (-2 / 3))
            expected = decay * expected + (1 - decay) * weight_after(step)
        assert averaging.evaluated(student).weight.item() == pytest.approx(expected, rel=1e-4)
        assert finished(averaging) is None  # its best on validation is kept


def test_ema_starts_where_a_first_phase_ended() -> None:
    """Whatever step is the first that it sees: one may be skipped."""
    student = Scalar()
    averaging: Any = build(Ema(decay=0.9), student, 10)
    student.weight.data.fill_(5.0)
    averaging.before_training(student)
    averaging.after_step(student, 3)
    assert averaging.evaluated(student).weight.item() == 5.0
