"""SWA against plain lists of every step's weights."""

from typing import Any

import pytest
import torch

from stochca.config import Swa, build
from tests.stochca.averaging.scalar import Scalar, finished, mean_of, train, weight_after


def test_swa_is_the_mean_of_the_last_steps() -> None:
    for interrupt in (False, True):
        averaging, _ = train(Swa(start=0.5), [1.0, 1.0, 1.0, 1.0], interrupt=interrupt)
        assert float(finished(averaging)["weight"]) == pytest.approx(mean_of([7, 8, 9, 10, 11, 12]))


def test_it_is_evaluated_once_it_has_begun() -> None:
    student = Scalar()
    averaging: Any = build(Swa(start=0.5), student, 4)
    for step, expected in ((1, 1.0), (2, 4.0), (3, 9.0), (4, (9 + 16) / 2)):
        student.weight.data.fill_(weight_after(step))
        averaging.after_step(student, step)
        assert averaging.evaluated(student).weight.item() == pytest.approx(expected)


def test_whole_numbers_are_copied_and_not_averaged() -> None:
    """On a GPU, averaging them ends in an error of torch's."""
    student = Scalar()
    student.register_buffer("index", torch.tensor([0, 7]))
    averaging: Any = build(Swa(start=0.0), student, 3)
    for step in (1, 2, 3):
        student.get_buffer("index").add_(step)
        averaging.after_step(student, step)
        assert averaging.evaluated(student).index.equal(student.index)
    assert finished(averaging)["index"].tolist() == [6, 13]
