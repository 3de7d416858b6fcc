"""What is searched: the probability, one or one per block, and the learning rate where that is wanted."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

from pipeline.config.sections import Range, Space, Tune

Values = Mapping[str, float]  # what one trial tries: prob, or prob_0, prob_1, ...; and lr
PLAIN = 0.0  # plain fine-tuning
PAPERS = 0.1  # arXiv 2402.16092
FEW_DRAWS = 10  # at random, before Optuna's sampler learns from what it has seen, where trials allow as many


def dimensions(tune: Tune, blocks: int) -> dict[str, Space]:
    """The names of what varies, and where it varies."""
    names = [f"prob_{block}" for block in range(blocks)] if tune.per_block else ["prob"]
    rate = {} if tune.lr is None else {"lr": tune.lr}
    return {**dict.fromkeys(names, tune.prob), **rate}


def first_points(tune: Tune, blocks: int, lr: float) -> list[dict[str, float]]:
    """What is tried first: plain fine-tuning and the paper's probability, where the space holds them.

    A space of few values is gone through from end to end, each of them once.

    Args:
        lr: the rate that goes with them, or the nearest that the space holds.
    """
    spaces = dimensions(tune, blocks)
    if _is_gone_through(spaces, tune.trials):
        grid = [
            dict(zip(spaces, values, strict=True))
            for values in itertools.product(*map(_listed, spaces.values()))
        ]
        first = (PLAIN, PAPERS)
        return sorted(grid, key=lambda values: [_single_prob(values) != prob for prob in first])
    rate = {} if tune.lr is None else {"lr": _nearest(tune.lr, lr)}
    names = [name for name in spaces if name != "lr"]
    known = [prob for prob in (PLAIN, PAPERS) if _holds(tune.prob, prob)]
    return [{**dict.fromkeys(names, prob), **rate} for prob in known[: tune.trials]]


def number_of_trials(tune: Tune, blocks: int) -> int:
    """`tune.trials`, or fewer where the space holds fewer values."""
    spaces = dimensions(tune, blocks)
    if _is_gone_through(spaces, tune.trials):
        return math.prod(len(_listed(space)) for space in spaces.values())
    return tune.trials


def random_draws(trials: int) -> int:
    """How many trials Optuna draws at random before it learns; its own 10 is all that a short search has."""
    return max(1, min(FEW_DRAWS, trials // 2))


def prob_of(values: Values) -> float | tuple[float, ...]:
    """The probability as a method takes it: one, or one per block."""
    if "prob" in values:
        return values["prob"]
    return tuple(values[f"prob_{block}"] for block in range(sum(name.startswith("prob_") for name in values)))


def as_methods_take(values: Values) -> dict[str, Any]:
    """As best.yaml has it: ``prob``, one or a list, and ``lr`` where that is searched."""
    prob = prob_of(values)
    rate = {name: value for name, value in values.items() if name == "lr"}
    return {"prob": list(prob) if isinstance(prob, tuple) else prob, **rate}


def mean_prob(values: Values) -> float:
    """The probability, or its mean over the blocks."""
    prob = prob_of(values)
    return sum(prob) / len(prob) if isinstance(prob, tuple) else prob


def is_plain(values: Values) -> bool:
    """Whether no block ever cross-attends."""
    prob = prob_of(values)
    return not any(prob) if isinstance(prob, tuple) else prob == 0


def described(values: Values) -> str:
    """For people: ``prob=0.213, lr=3e-05``."""
    prob = prob_of(values)
    text = f"{prob:.3g}" if isinstance(prob, float | int) else "/".join(f"{value:.2g}" for value in prob)
    return f"prob={text}" + (f", lr={values['lr']:.2g}" if "lr" in values else "")


def ray_space(tune: Tune, blocks: int) -> dict[str, Any]:
    """The space in Ray Tune's terms; learning rates are drawn on a log scale."""
    from ray.tune import choice, loguniform, uniform

    def domain(name: str, space: Space) -> Any:
        if isinstance(space, Range):
            return (loguniform if name == "lr" else uniform)(space.low, space.high)
        return choice(_listed(space))

    return {name: domain(name, space) for name, space in dimensions(tune, blocks).items()}


def _is_gone_through(spaces: Mapping[str, Space], trials: int) -> bool:
    if any(isinstance(space, Range) for space in spaces.values()):
        return False
    return math.prod(len(_listed(space)) for space in spaces.values()) <= trials


def _listed(space: Space) -> list[float]:
    assert not isinstance(space, Range)
    return list(dict.fromkeys(space))  # a value that is listed twice counts once


def _single_prob(values: Values) -> float | None:
    """The probability that all blocks share, if they do."""
    prob = prob_of(values)
    if isinstance(prob, tuple):
        return prob[0] if len(set(prob)) == 1 else None
    return prob


def _holds(space: Space, value: float) -> bool:
    return space.low <= value <= space.high if isinstance(space, Range) else value in space


def _nearest(space: Space, value: float) -> float:
    if isinstance(space, Range):
        return min(max(value, space.low), space.high)
    return min(space, key=lambda listed: abs(math.log(listed / value)))
