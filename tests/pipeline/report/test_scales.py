"""Axes that hold their values, with round ticks."""

from collections.abc import Sequence

import pytest

from pipeline.report.scales import Scale


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.0, 10.0], (0, 2, 4, 6, 8, 10)),
        ([-0.046, 0.031], (-0.04, -0.02, 0.0, 0.02)),
        ([5.0, 5.0], (5.0,)),
        ([0.0, 0.0], (0.0,)),
    ],
)
def test_scales(values: Sequence[float], ticks: Sequence[float]) -> None:
    scale = Scale.around(values)
    for value in (*values, *scale.ticks):
        assert 0 <= scale.percent(value) <= 100
    assert scale.ticks == tuple(ticks)
