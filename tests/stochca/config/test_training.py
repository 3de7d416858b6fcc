"""From epochs and shares to steps, against counting images."""

from typing import Any

import pytest

from stochca.config.training import Training


def distance(epochs: float, images: int, batch_size: int, steps: int) -> float:
    """How many images so many full batches are away from the epochs."""
    return abs(steps * batch_size - epochs * images)


@pytest.mark.parametrize("epochs", [0.01, 0.5, 1, 1.4, 28])
@pytest.mark.parametrize("images", [1, 10, 171, 1138])
@pytest.mark.parametrize("batch_size", [1, 16, 32])
def test_epochs_are_the_full_batches_that_come_nearest_to_them(
    epochs: float, images: int, batch_size: int
) -> None:
    steps = Training(epochs=epochs, batch_size=batch_size).timetable(images).steps
    assert steps >= 1
    away = distance(epochs, images, batch_size, steps)
    assert away <= distance(epochs, images, batch_size, steps + 1)
    assert steps == 1 or away <= distance(epochs, images, batch_size, steps - 1)


def test_a_last_batch_that_is_not_full_is_rounded() -> None:
    """171 images make 10.7 batches of 16."""
    assert Training(epochs=1, batch_size=16).timetable(171).steps == 11
    assert Training(epochs=28, batch_size=16).timetable(171).steps == 299
    assert Training(epochs=1, batch_size=32).timetable(3).steps == 1


def test_steps_are_what_they_are_however_many_images_there_are() -> None:
    settings = Training(steps=50, warmup=0.1, evaluations=5, checkpoints=2)
    assert settings.timetable(1138) == settings.timetable(0)
    timetable = settings.timetable(1138)
    assert (timetable.steps, timetable.warmup) == (50, 5)
    assert (timetable.evaluations, timetable.checkpoints) == ((10, 20, 30, 40, 50), (25, 50))


@pytest.mark.parametrize("steps", range(1, 40))
def test_every_number_of_warm_up_steps_has_a_share(steps: int) -> None:
    for warmup in range(steps):
        assert Training(steps=steps, warmup=warmup / steps).timetable(1).warmup == warmup
    assert Training(steps=steps, warmup=0.99).timetable(1).warmup < steps


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"epochs": 0.5, "steps": 50}, "epochs 0.5 and steps 50 both say how long to train; set one"),
        ({}, "epochs or steps must say how long to train, and both are null"),
        ({"epochs": 0}, "epochs must be above 0, found 0"),
        ({"epochs": -1.5}, "epochs must be above 0, found -1.5"),
        ({"steps": 0}, "steps must be 1 or more, found 0"),
        ({"steps": 9, "warmup": 5}, "warmup must be at least 0 and below 1, a share of the steps, found 5"),
        ({"steps": 9, "evaluations": 0}, "evaluations must be 1 or more, how many in a run, found 0"),
        ({"steps": 9, "checkpoints": -1}, "checkpoints must be 1 or more, how many in a run, found -1"),
        ({"steps": 9, "patience": 0}, "patience must be 1 or more, or null, found 0"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Training(**settings)
