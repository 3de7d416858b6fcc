"""Averages against plain lists of every step's weights."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stochca.averaging import start_averaging
from stochca.config import Average, Ema, NoAverage, Swa, Swad, WiseFt
from stochca.evaluation import Scores


class Scalar(nn.Module):
    """A model of one weight; step s leaves it at s squared, so that every mean is unmistakable."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))


def weight_after(step: int) -> float:
    return float(step**2)


def train(
    config: Average, losses: list[float], steps_per_look: int = 3, interrupt: bool = False
) -> tuple[Any, Scalar]:
    student = Scalar()
    steps = steps_per_look * len(losses)
    averaging = start_averaging(config, student, steps)
    for step in range(1, steps + 1):
        student.weight.data.fill_(weight_after(step))
        averaging.after_step(student, step)
        if step % steps_per_look == 0:
            averaging.after_evaluation(student, step, losses[step // steps_per_look - 1])
        if interrupt:  # a checkpoint after every step
            state = averaging.state_dict()
            averaging = start_averaging(config, student, steps)
            averaging.load_state_dict(state)
    return averaging, student


def mean_of(steps: list[int]) -> float:
    return sum(weight_after(step) for step in steps) / len(steps)


def slow_swad(losses: list[float], n_converge: int, n_tolerance: int, ratio: float) -> list[int] | None:
    """The segments of the valley, from the definition; None if there is none."""
    for start in range(len(losses) - n_converge + 1):
        window = losses[start : start + n_converge]
        if window[0] == min(window):
            threshold = sum(window) / n_converge * (1 + ratio)
            break
    else:
        return None
    end = len(losses)
    for last in range(start + n_tolerance - 1, len(losses)):
        if min(losses[last - n_tolerance + 1 : last + 1]) > threshold:
            end = last - n_tolerance + 1
            break
    while end > start and losses[end - 1] > threshold:
        end -= 1
    return list(range(start, end))


def never(model: nn.Module) -> Scores:
    raise AssertionError("nothing is to be chosen on validation")


def finished(averaging: Any) -> Any:
    student = Scalar()
    return averaging.finish(student, student.state_dict(), never)


def valley_weight(averaging: Any) -> float:
    weights: dict[str, Tensor] = finished(averaging)
    return float(weights["weight"])


@pytest.mark.parametrize("interrupt", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_swad_equals_the_definition(seed: int, interrupt: bool) -> None:
    random = torch.Generator().manual_seed(seed)
    losses = (1 + 0.5 * torch.rand(14, generator=random)).tolist()
    if seed % 3 == 0:  # fall first, rise last
        losses = [loss + abs(i - 5) * 0.15 for i, loss in enumerate(losses)]
    n_converge, n_tolerance = 1 + seed % 4, 1 + seed % 6
    config = Swad(n_converge=n_converge, n_tolerance=n_tolerance, tolerance_ratio=0.05)
    averaging, _ = train(config, losses, interrupt=interrupt)
    segments = slow_swad(losses, n_converge, n_tolerance, 0.05)
    assert segments
    steps = [3 * segment + i for segment in segments for i in (1, 2, 3)]
    assert valley_weight(averaging) == pytest.approx(mean_of(steps), rel=1e-4)
    assert f"steps {steps[0]} to {steps[-1]}" in averaging.notes[0]


def test_swad_counts_the_converging_segment_once() -> None:
    """The reference code counts segment 0 three times when it converges at the first check."""
    averaging, _ = train(Swad(n_converge=3, n_tolerance=6), [1.0, 1.1, 1.1, 1.1])
    assert valley_weight(averaging) == pytest.approx(mean_of(list(range(1, 13))))


def test_swad_without_a_valley_says_so_and_keeps_the_last_segment() -> None:
    averaging, _ = train(Swad(n_converge=3), [5.0, 4.0, 3.0, 2.0, 1.0])
    assert valley_weight(averaging) == pytest.approx(mean_of([13, 14, 15]))
    assert "found no valley" in averaging.notes[0]
    assert "steps 13 to 15" in averaging.notes[0]


def test_swa_is_the_mean_of_the_last_steps() -> None:
    for interrupt in (False, True):
        averaging, _ = train(Swa(start=0.5), [1.0, 1.0, 1.0, 1.0], interrupt=interrupt)
        assert float(finished(averaging)["weight"]) == pytest.approx(mean_of([7, 8, 9, 10, 11, 12]))


def test_swa_is_what_validation_looks_at_once_it_has_begun() -> None:
    student = Scalar()
    averaging: Any = start_averaging(Swa(start=0.5), student, 4)
    for step, expected in ((1, 1.0), (2, 4.0), (3, 9.0), (4, (9 + 16) / 2)):
        student.weight.data.fill_(weight_after(step))
        averaging.after_step(student, step)
        assert averaging.evaluated(student).weight.item() == pytest.approx(expected)


@pytest.mark.parametrize("config", [Swa(start=0.5), Swad(n_converge=1)])
def test_statistics_of_batch_normalisation_are_averaged_like_weights(config: Average) -> None:
    student = nn.BatchNorm1d(1)
    averaging: Any = start_averaging(config, student, 4)
    for step in range(1, 5):
        assert student.running_mean is not None
        student.running_mean.fill_(weight_after(step))
        averaging.after_step(student, step)
        if step == 2 and isinstance(config, Swad):
            averaging.after_evaluation(student, step, 1.0)
    averaging.after_evaluation(student, 4, 1.0)
    averaged = mean_of([3, 4] if isinstance(config, Swa) else [1, 2, 3, 4])
    assert finished(averaging)["running_mean"].item() == pytest.approx(averaged)


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


def test_no_average_leaves_everything_to_the_loop() -> None:
    averaging, student = train(NoAverage(), [1.0])
    assert averaging.evaluated(student) is student
    assert finished(averaging) is None


def wise_ft(alpha: float | tuple[float, ...], interrupt: bool = False) -> tuple[Any, Scalar]:
    """Trained from 2 to 10, with a checkpoint in between."""
    student = Scalar()
    averaging: Any = start_averaging(WiseFt(alpha=alpha), student, 1)
    student.weight.data.fill_(2)  # as a first phase leaves it
    averaging.before_training(student)
    if interrupt:
        state = averaging.state_dict()
        averaging = start_averaging(WiseFt(alpha=alpha), Scalar(), 1)
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

    def look(model: Any) -> Scores:  # as accurate at 4 as at 6, but surer at 4
        weight = model.weight.item()
        return Scores(loss=weight, accuracy=0.75 if weight in (4.0, 6.0) else 0.5)

    assert float(averaging.finish(student, student.state_dict(), look)["weight"]) == pytest.approx(4.0)
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
    averaging: Any = start_averaging(WiseFt(alpha=0.5), student, 1)
    averaging.before_training(student)
    student.steps.fill_(8)
    assert averaging.finish(student, student.state_dict(), never)["steps"].item() == 8


def test_ema_starts_where_a_first_phase_ended() -> None:
    """Whatever step is the first that it sees: one may be skipped."""
    student = Scalar()
    averaging: Any = start_averaging(Ema(decay=0.9), student, 10)
    student.weight.data.fill_(5.0)
    averaging.before_training(student)
    averaging.after_step(student, 3)
    assert averaging.evaluated(student).weight.item() == 5.0
