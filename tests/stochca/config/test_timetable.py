"""Evenly spread steps, against what evenly means."""

import pytest

from stochca.config.timetable import spread


@pytest.mark.parametrize("steps", [1, 2, 7, 36, 50, 1000])
@pytest.mark.parametrize("times", [1, 2, 3, 10, 49])
def test_so_many_at_equal_distances_and_the_last_step_among_them(times: int, steps: int) -> None:
    found = spread(times, steps)
    assert len(found) == min(times, steps)
    assert found[-1] == steps
    distances = {step - before for step, before in zip(found, (0, *found), strict=False)}
    assert min(distances) >= 1
    assert max(distances) - min(distances) <= 1


@pytest.mark.parametrize(("every", "steps"), [(10, 50), (25, 50), (843, 16860), (1, 8)])
def test_what_divides_the_steps_is_every_so_many(every: int, steps: int) -> None:
    assert spread(steps // every, steps) == tuple(range(every, steps + 1, every))
