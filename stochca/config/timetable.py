"""When what happens in a training run, in optimiser steps."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Timetable:
    """A run in optimiser steps, counted from 1. Its fields have the names that they have in `Training`."""

    steps: int
    warmup: int  # steps in which the learning rate rises
    # The steps after which validation is evaluated, and a checkpoint written; the last step is one of them.
    evaluations: tuple[int, ...]
    checkpoints: tuple[int, ...]


def spread(times: int, steps: int) -> tuple[int, ...]:
    """So many of the steps, evenly apart, with the last one; all of them where there are no more."""
    times = min(times, steps)
    return tuple(-(-steps * number // times) for number in range(1, times + 1))
