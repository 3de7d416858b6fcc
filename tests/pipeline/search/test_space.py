import itertools
from typing import Any

import pytest

from pipeline.config.sections import Range, Tune
from pipeline.search.space import (
    described,
    dimensions,
    first_points,
    is_plain,
    number_of_trials,
    prob_of,
    trials_before_learning,
)
from tests.pipeline.sections import SHIPPED

ANY = Range(low=0.0, high=0.5)


def tune(**settings: Any) -> Tune:
    """Settings as params.yaml has them, but for the learning rate."""
    written = {**SHIPPED["tune"], "prob": ANY, "lr": None, **settings}
    ranges = {name: value.model_dump() for name, value in written.items() if isinstance(value, Range)}
    return Tune.model_validate({**written, **ranges})


def test_one_probability_or_one_per_block() -> None:
    assert dimensions(tune(), 3) == {"prob": ANY}
    rates = Range(low=1e-5, high=1e-3)
    found = dimensions(tune(per_block=True, lr=rates), 3)
    assert found == {"prob_0": ANY, "prob_1": ANY, "prob_2": ANY, "lr": rates}


@pytest.mark.parametrize(
    ("prob", "expected"),
    [
        (ANY, [{"prob": 0.0}, {"prob": 0.1}]),
        (Range(low=0.05, high=0.5), [{"prob": 0.1}]),
        (Range(low=0.2, high=0.5), []),
        ((0.3, 0.1, 0.2, 0.0, 0.4), [{"prob": 0.0}, {"prob": 0.1}]),
    ],
)
def test_plain_fine_tuning_and_the_papers_come_first(prob: Any, expected: list[dict[str, float]]) -> None:
    assert first_points(tune(prob=prob, trials=4), 3, lr=1e-4) == expected


def test_plain_fine_tuning_is_tried_at_the_nearest_rate_and_at_both_ends_of_those_searched() -> None:
    for space, expected in (
        (Range(low=1e-5, high=1e-3), [(0, 1e-4), (0.1, 1e-4), (0, 1e-5), (0, 1e-3)]),
        (Range(low=1e-3, high=1e-2), [(0, 1e-3), (0.1, 1e-3), (0, 1e-2)]),
        ((1e-5, 3e-4), [(0, 3e-4), (0.1, 3e-4), (0, 1e-5)]),
    ):
        for trials, number in ((1, 1), (5, 2), (8, 4)):
            points = first_points(tune(lr=space, trials=trials), 3, lr=1e-4)
            assert [(point["prob"], point["lr"]) for point in points] == expected[:number]
    without_plain = tune(prob=Range(low=0.05, high=0.5), lr=Range(low=1e-5, high=1e-3))
    assert first_points(without_plain, 3, lr=1e-4) == [{"prob": 0.1, "lr": 1e-4}]


def test_per_block_they_are_the_same_in_every_block() -> None:
    points = first_points(tune(per_block=True), 2, lr=1e-4)
    assert [prob_of(point) for point in points] == [(0.0, 0.0), (0.1, 0.1)]


def test_few_values_are_each_tried_once() -> None:
    settings = tune(prob=(0.2, 0.1, 0.0, 0.2), lr=(1e-4, 1e-3), trials=8)
    points = first_points(settings, 12, lr=1e-4)
    assert [point["prob"] for point in points] == [0.0, 0.0, 0.1, 0.1, 0.2, 0.2]
    expected = set(itertools.product((0.0, 0.1, 0.2), (1e-4, 1e-3)))
    assert {(point["prob"], point["lr"]) for point in points} == expected
    assert number_of_trials(settings, 12) == 6
    assert number_of_trials(tune(prob=(0.2, 0.1, 0.0), trials=2), 12) == 2
    assert number_of_trials(tune(trials=9), 12) == 9


def test_some_trials_are_left_to_learn_from_the_others() -> None:
    assert [trials_before_learning(trials) for trials in (1, 2, 8, 20, 100)] == [1, 1, 4, 10, 10]


def test_plain_means_that_no_block_ever_cross_attends() -> None:
    assert is_plain({"prob": 0.0, "lr": 1e-3})
    assert is_plain({"prob_0": 0.0, "prob_1": 0})
    assert not is_plain({"prob_0": 0.0, "prob_1": 0.01})
    assert not is_plain({"prob": 1e-9})


def test_blocks_keep_their_order() -> None:
    values = {f"prob_{block}": block / 100 for block in reversed(range(12))}
    assert prob_of(values) == tuple(block / 100 for block in range(12))


def test_a_trial_is_described_shortly() -> None:
    assert described({"prob": 0.2134}) == "prob=0.213"
    assert described({"prob": 0.0, "lr": 3e-5}) == "prob=0, lr=3e-05"
    assert described({"prob_0": 0.0, "prob_1": 0.125}) == "prob=0/0.12"


def test_optuna_gets_the_space_as_it_is_and_draws_rates_on_a_log_scale() -> None:
    from ray.tune.search.optuna import OptunaSearch

    from pipeline.search.space import ray_space

    space = ray_space(tune(lr=Range(low=1e-5, high=1e-3)), 3)
    found = OptunaSearch.convert_search_space(space)
    assert (found["prob"].low, found["prob"].high, found["prob"].log) == (0.0, 0.5, False)
    assert (found["lr"].low, found["lr"].high, found["lr"].log) == (1e-5, 1e-3, True)
    listed = OptunaSearch.convert_search_space(ray_space(tune(prob=(0.1, 0.3)), 3))
    assert listed["prob"].choices == (0.1, 0.3)
