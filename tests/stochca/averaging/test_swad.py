"""SWAD against its definition, and plain lists of every step's weights."""

from typing import Any

import pytest
import torch
from torch import Tensor

from stochca.config import Swad
from tests.stochca.averaging.scalar import finished, mean_of, train


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
