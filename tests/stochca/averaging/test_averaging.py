"""What holds for averages in general."""

from typing import Any

import pytest
from torch import nn

from stochca.config import Average, NoAverage, Swa, Swad, build
from tests.stochca.averaging.scalar import finished, mean_of, train, weight_after


def test_no_average_leaves_everything_to_the_loop() -> None:
    averaging, student = train(NoAverage(), [1.0])
    assert averaging.evaluated(student) is student
    assert finished(averaging) is None


@pytest.mark.parametrize("config", [Swa(start=0.5), Swad(n_converge=1)])
def test_statistics_of_batch_normalisation_are_averaged_like_weights(config: Average) -> None:
    student = nn.BatchNorm1d(1)
    averaging: Any = build(config, student, 4)
    for step in range(1, 5):
        assert student.running_mean is not None
        student.running_mean.fill_(weight_after(step))
        averaging.after_step(student, step)
        if step == 2 and isinstance(config, Swad):
            averaging.after_evaluation(student, step, 1.0)
    averaging.after_evaluation(student, 4, 1.0)
    averaged = mean_of([3, 4] if isinstance(config, Swa) else [1, 2, 3, 4])
    assert finished(averaging)["running_mean"].item() == pytest.approx(averaged)
