"""What Ray Tune tells, also after a kill, when it tells again what is known."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.search.records import Record, Records, Rung

STEPS = 8
VALUES = {"prob": 0.1}


def result(*rungs: tuple[int, float], problem: str | None = None) -> dict[str, Any]:
    """As `Trial.step` gives it, after so many rungs."""
    told = [{"step": step, "values": [value]} for step, value in rungs]
    return {"step": rungs[-1][0], "rungs": told, "seconds": 1.5, "node": "here", "problem": problem}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "records.json"


@pytest.fixture
def records(file: Path) -> Records:
    return Records(file, STEPS)


def known(file: Path) -> Record:
    """Of the only trial, as a search that goes on finds it."""
    (record,) = Records(file, STEPS).trials.values()
    return record


def test_the_mean_and_the_spread_over_the_seeds() -> None:
    rung = Rung(2, [0.5, 0.7])
    assert rung.mean == pytest.approx(0.6)
    assert rung.std == pytest.approx(0.02**0.5)
    assert Rung(2, [0.5]).std is None


def test_a_search_that_goes_on_finds_what_was_reported(records: Records, file: Path) -> None:
    records.started("a", 1, VALUES)
    assert (known(file).step, known(file).finished_at) == (0, None)
    records.reported(1, result((2, 0.5), (4, 0.625)))
    found = known(file)
    assert (found.step, found.reached.mean, found.seconds, found.node) == (4, 0.625, 1.5, "here")
    assert [rung.values for rung in found.rungs] == [[0.5], [0.625]]
    assert found == records.trials[1]


@pytest.mark.parametrize(("step", "stopped"), [(4, True), (STEPS, False)])
def test_a_trial_that_ends_before_the_last_step_was_stopped(
    records: Records, step: int, stopped: bool
) -> None:
    records.started("a", 1, VALUES)
    records.reported(1, result((step, 0.5)))
    records.finished(1)
    assert (records.trials[1].stopped_early, records.trials[1].is_complete) == (stopped, not stopped)


def test_what_is_told_again_changes_nothing(records: Records, file: Path) -> None:
    records.started("a", 1, VALUES)
    records.reported(1, result((2, 0.5), (STEPS, 0.75)))
    records.finished(1)
    before = known(file)
    again = Records(file, STEPS)
    again.began -= 60.0  # a minute later
    again.started("a", 1, VALUES)
    again.reported(1, result((2, 0.5)))
    again.reported(1, result((2, 0.5), (STEPS, 0.75)))
    again.finished(1)
    assert known(file) == before


def test_the_clock_goes_on_where_it_stood(records: Records, file: Path) -> None:
    records.began -= 60.0
    records.started("a", 1, VALUES)
    again = Records(file, STEPS)
    again.started("a", 1, VALUES)
    again.finished(1)
    assert again.trials[1].finished_at == pytest.approx(60.0, abs=5.0)


def test_a_trial_that_is_drawn_again_takes_the_place_of_the_one_that_ray_tune_forgot(
    records: Records,
) -> None:
    records.started("a", 1, VALUES)
    records.reported(1, result((2, 0.5)))
    records.started("b", 1, {"prob": 0.2})
    assert list(records.trials.values()) == [Record("b", 1, {"prob": 0.2})]


def test_a_trial_that_failed_has_the_last_line_of_its_error_and_may_be_tried_again(records: Records) -> None:
    records.started("a", 1, VALUES)
    records.finished(1, RuntimeError("Traceback\n  its machine was lost\n"))
    assert records.trials[1].problem == "its machine was lost"
    assert not records.trials[1].stopped_early
    records.started("a", 1, VALUES)
    records.reported(1, result((STEPS, 0.5)))
    records.finished(1)
    assert records.trials[1].is_complete


def test_a_diverged_trial_has_a_problem_also_when_it_is_told_again(records: Records) -> None:
    for _ in range(2):
        records.started("a", 1, VALUES)
        records.reported(1, result((2, 0.0), problem="training diverged"))
        records.finished(1)
        assert (records.trials[1].problem, records.trials[1].is_complete) == ("training diverged", False)
