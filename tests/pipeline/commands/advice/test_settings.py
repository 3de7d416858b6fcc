from collections.abc import Callable
from typing import Any

import pytest

from pipeline.commands.advice.machine import Machine
from pipeline.commands.advice.settings import (
    METHODS,
    Plan,
    advise,
    batch_size,
    epochs,
    image_sizes,
    micro_batches,
    shares,
)
from pipeline.commands.advice.survey import Survey
from pipeline.commands.cost import Speed
from pipeline.config.params import Params
from pipeline.config.presets import find_preset

LAPTOP, SERVER = Machine(2, "bf16"), Machine(16, "bf16", "a GPU", 80.0)
HOUR = 3600.0


@pytest.fixture(scope="module")
def base() -> Params:
    return find_preset("default").params()


def found(classes: dict[str, int], short_side: int = 300, **others: Any) -> Survey:
    facts: dict[str, Any] = {
        "layout": "class",
        "domains": ["all"],
        "splits": {"train": sum(classes.values())},
    }
    facts |= {"looked_at": 300, "sides": (short_side, short_side), **others}
    return Survey(classes=classes, short_side=short_side, **facts)


def patches_in(second: float) -> Callable[[int], Speed]:
    """A machine that trains on so many patches in a second, whatever the size of the images."""

    def speed(image_size: int) -> Speed:
        image = (image_size / 14) ** 2 / second
        return Speed("it", "fp32", train_image=image, forward_image=image / 3, step=0.0, blocks=12)

    return speed


def advised(
    base: Params, survey: Survey, *, second: float = 2000, machine: Machine = LAPTOP, hours: float = 1
) -> tuple[Plan, dict[str, Any], dict[str, str]]:
    plan, settings = advise(survey, machine, base, patches_in(second), hours * HOUR)
    keys = [setting.key for setting in settings]
    assert len(set(keys)) == len(keys)
    assert all(setting.why and "\n" not in setting.why for setting in settings)
    values, why = ({each[0]: each[place] for each in settings} for place in (1, 2))
    return plan, values, why


def test_images_are_not_made_larger_but_for_the_smallest() -> None:
    assert image_sizes(28, LAPTOP) == image_sizes(28, SERVER) == [56]
    assert image_sizes(64, LAPTOP) == [56]
    assert image_sizes(100, LAPTOP) == [98, 84, 56]
    assert image_sizes(500, LAPTOP) == [112, 84, 56]
    assert image_sizes(500, SERVER) == [224, 168, 112, 84, 56]
    for side in range(20, 300):
        for size in image_sizes(side, SERVER):
            assert size % 14 == 0
            assert size <= max(side, 56)


@pytest.mark.parametrize("train", [10, 171, 500, 1334, 5000, 20_000, 60_000, 1_000_000])
def test_more_images_are_seen_less_often_but_trained_on_for_longer(train: int) -> None:
    assert epochs(train) <= 28
    assert epochs(train) >= epochs(2 * train)
    assert epochs(train) * train < epochs(2 * train) * 2 * train
    steps = epochs(train) * train / batch_size(train)
    if 500 < train < 100_000:
        assert 800 < steps < 2500


def test_larger_sets_give_a_smaller_share_away() -> None:
    assert shares(400) == (0.15, 0.25)
    for fewer, more in ((400, 5000), (5000, 50_000)):
        assert all(larger > smaller for larger, smaller in zip(shares(fewer), shares(more), strict=True))
        assert all(
            s < m
            for s, m in zip((fewer * s for s in shares(fewer)), (more * s for s in shares(more)), strict=True)
        )


def test_a_batch_fits_into_memory() -> None:
    assert micro_batches(64, 224, None) == micro_batches(64, 224, 80.0) == 1
    assert micro_batches(64, 224, 4.0) == 4
    assert micro_batches(64, 224, 0.001) == 64


def test_few_images_and_much_time(base: Params) -> None:
    plan, values, _ = advised(base, found({"a": 200, "b": 160}), second=1e6)
    assert plan.fits
    assert (values["image_size"], values["training.epochs"], values["training.batch_size"]) == (112, 28, 16)
    assert values["protocol.seeds"] == [0, 1, 2]
    assert (values["protocol.baseline"], values["protocol.combined"]) == METHODS[0]
    assert values["training.class_weights"] == "none"
    assert values["protocol.selection"] == "accuracy"
    assert values["training.patience"] is values["training.steps"] is None


def test_less_time_costs_seeds_then_methods_then_pixels(base: Params) -> None:
    survey = found({"good": 1508, "defective": 715})
    budgets = (20, 10, 6, 3, 2, 1.5, 1, 0.5, 0.15)
    plans = [advised(base, survey, hours=hours)[0] for hours in budgets]
    for plan, hours in zip(plans, budgets, strict=True):
        assert not plan.fits or plan.seconds <= hours * HOUR
    ranks = [
        (plan.image_size, plan.epochs, len(plan.baseline + plan.combined), len(plan.seeds)) for plan in plans
    ]
    assert ranks == sorted(ranks, reverse=True)
    assert ranks[0] == (112, 17, 3, 3)
    assert ranks[-1][0] == 56
    assert plans[0].seconds == pytest.approx(  # by hand: 1,333 images, 17 times, 64 patches, and a bit more
        12 * 1333 * 17 * 64 / 2000, rel=0.4
    )


def test_what_does_not_fit_is_the_least_and_says_so(base: Params) -> None:
    plan, values, why = advised(base, found({"a": 60_000, "b": 40_000}), second=50)
    assert not plan.fits
    assert plan.seconds > HOUR
    assert (values["image_size"], values["protocol.combined"], values["protocol.seeds"]) == (56, [], [0])
    assert values["training.epochs"] >= 0.5
    assert why["protocol.seeds"] == "the least there is; it takes longer than 60 minutes"
    assert "would be better, and took longer" in why["training.epochs"]
    assert values["training.evaluations"] == 7


@pytest.mark.parametrize("second", [2000, 50, 1])
def test_few_images_are_trained_on_for_10_epochs_however_slow_the_machine(
    base: Params, second: float
) -> None:
    plan, values, _ = advised(base, found({"a": 300, "b": 300}), second=second)
    assert values["training.epochs"] >= 10
    assert plan.fits == (plan.seconds <= HOUR)


def test_rare_classes_count_more(base: Params) -> None:
    _, values, why = advised(base, found({"fine": 310, "broken": 100}))
    assert values["training.class_weights"] == "balanced"
    assert values["protocol.selection"] == "balanced_accuracy"
    assert why["protocol.selection"] == "fine has 3.1 times the images of broken"
    _, values, _ = advised(base, found({"fine": 290, "broken": 100}))
    assert values["protocol.selection"] == "accuracy"


def test_long_images_are_squashed_so_that_nothing_is_cut_off(base: Params) -> None:
    _, values, why = advised(base, found({"a": 60, "b": 60}, length=4.0))
    assert values["resize"] == values["image_size"]
    assert why["resize"].startswith("the images are 4.0 times as long as wide")
    assert "resize" not in advised(base, found({"a": 60, "b": 60}, length=2.0))[1]


def test_characters_are_not_mirrored(base: Params) -> None:
    digits = found({str(digit): 60 for digit in range(10)}, short_side=28)
    _, values, why = advised(base, digits)
    assert values["training.augmentation.horizontal_flip"] == 0
    assert why["image_size"] == "the images have 28, made larger to 4 x 4 patches"
    _, values, why = advised(base, found({"turnLeft": 60, "turn_right": 60, "stop": 60}))
    assert values["training.augmentation.horizontal_flip"] == 0
    assert "turnLeft" in why["training.augmentation.horizontal_flip"]
    for others in (("0", "1"), ("left_over", "right_angle")):
        _, values, _ = advised(base, found(dict.fromkeys(others, 60)))
        assert "training.augmentation.horizontal_flip" not in values


def test_domains_and_splits_that_are_there(base: Params) -> None:
    survey = found({"a": 50, "b": 50}, domains=["mono", "poly"], splits={"train": 80, "test": 20})
    _, values, why = advised(base, survey)
    assert values["protocol.name"] == "transfer"
    assert why["protocol.name"].endswith("leave_one_domain_out, with targets: [mono, poly]")
    assert why["dataset.test"] == "not used: the images come with test"
    assert why["dataset.validation"] == "of 100 images"


def test_a_gpu_sees_larger_images_and_has_one_trial_at_a_time(base: Params) -> None:
    survey = found({"a": 200, "b": 200})
    _, values, _ = advised(base, survey, machine=SERVER, second=1e6)
    assert values["image_size"] == 224
    assert values["tune.resources"] == {"cpu": 1, "gpu": 1}
    assert "training.accumulate" not in values
    small = Machine(8, "fp32", "a small GPU", 1.0)
    _, values, why = advised(base, survey, machine=small, second=1e6)
    assert values["training.accumulate"] == 4
    assert why["training.accumulate"] == "so that a step fits into 1 GiB"
    assert "tune.resources" not in advised(base, survey)[1]
