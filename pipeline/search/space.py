"""What is searched: the probability, one or one per block, and the learning rate where that is wanted."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

from pipeline.config.sections import Range, Space, Tune

Values = Mapping[str, float]  # what one trial tries: prob, or prob_0, prob_1, ...; and lr
PLAIN = 0.0  # plain fine-tuning
PAPERS = 0.1  # arXiv 2402.16092
FEW_DRAWS = 10  # before Optuna's sampler learns from what it has seen, where trials allow as many


def dimensions(tune: Tune, blocks: int) -> dict[str, Space]:
    """The names of what varies, and where it varies."""
    names = [f"prob_{block}" for block in range(blocks)] if tune.per_block else ["prob"]
    rate = {} if tune.lr is None else {"lr": tune.lr}
    return {**dict.fromkeys(names, tune.prob), **rate}


def first_points(tune: Tune, blocks: int, lr: float) -> list[dict[str, float]]:
    """What is tried first: plain fine-tuning and the paper's probability, where the space holds them.

    Where rates are searched, plain fine-tuning is then tried at both ends of theirs as well, in up to half of
    the trials: compared at one rate alone, it would lose to whatever got a better one. A space of few values
    is gone through from end to end, each of them once.

    Args:
        lr: the rate that goes with them, or the nearest that the space holds.
    """
    if grid := _grid(tune, blocks):
        return sorted(grid, key=lambda values: [set(probs_of(values)) != {p} for p in (PLAIN, PAPERS)])
    names = [name for name in dimensions(tune, blocks) if name != "lr"]
    first = [dict.fromkeys(names, prob) for prob in (PLAIN, PAPERS) if _holds(tune.prob, prob)]
    if tune.lr is not None:
        rate = _nearest(tune.lr, lr)
        ends = [end for end in _ends(tune.lr) if end != rate and _holds(tune.prob, PLAIN)]
        first = [
            *({**values, "lr": rate} for values in first),
            *({**dict.fromkeys(names, PLAIN), "lr": end} for end in ends),
        ]
    return first[: max(min(2, tune.trials), tune.trials // 2)]


def number_of_trials(tune: Tune, blocks: int) -> int:
    """`tune.trials`, or fewer where the space holds fewer values."""
    return len(_grid(tune, blocks)) or tune.trials


def trials_before_learning(trials: int) -> int:
    """How many, those tried first among them, come before Optuna learns: its own 10, or half of them."""
    return max(1, min(FEW_DRAWS, trials // 2))


def probs_of(values: Values) -> list[float]:
    """The probability of every block, in order; or the one that all blocks share."""
    blocks = sum(name.startswith("prob_") for name in values)
    return [values[f"prob_{block}"] for block in range(blocks)] or [values["prob"]]


def prob_of(values: Values) -> float | tuple[float, ...]:
    """The probability as a method takes it: one, or one per block."""
    return values["prob"] if "prob" in values else tuple(probs_of(values))


def as_methods_take(values: Values) -> dict[str, Any]:
    """As best.yaml has it: ``prob``, one or a list, and ``lr`` where that is searched."""
    rate = {name: value for name, value in values.items() if name == "lr"}
    return {"prob": values["prob"] if "prob" in values else probs_of(values), **rate}


def mean_prob(values: Values) -> float:
    """The probability, or its mean over the blocks."""
    return sum(probs_of(values)) / len(probs_of(values))


def is_plain(values: Values) -> bool:
    """Whether no block ever cross-attends."""
    return not any(probs_of(values))


def described(values: Values) -> str:
    """For people: ``prob=0.213, lr=3e-05``."""
    text = f"{values['prob']:.3g}" if "prob" in values else "/".join(f"{p:.2g}" for p in probs_of(values))
    return f"prob={text}" + (f", lr={values['lr']:.2g}" if "lr" in values else "")


def ray_space(tune: Tune, blocks: int) -> dict[str, Any]:
    """The space in Ray Tune's terms; learning rates are drawn on a log scale."""
    from ray.tune import choice, loguniform, uniform

    def domain(name: str, space: Space) -> Any:
        if isinstance(space, Range):
            return (loguniform if name == "lr" else uniform)(space.low, space.high)
        return choice(_listed(space))

    return {name: domain(name, space) for name, space in dimensions(tune, blocks).items()}


def _grid(tune: Tune, blocks: int) -> list[dict[str, float]]:
    """Every point of a space that has no more of them than there are trials; else none."""
    spaces = dimensions(tune, blocks)
    if any(isinstance(space, Range) for space in spaces.values()):
        return []
    values = [_listed(space) for space in spaces.values()]
    if math.prod(map(len, values)) > tune.trials:
        return []
    return [dict(zip(spaces, point, strict=True)) for point in itertools.product(*values)]


def _listed(space: Space) -> list[float]:
    assert not isinstance(space, Range)
    return list(dict.fromkeys(space))  # a value that is listed twice counts once


def _holds(space: Space, value: float) -> bool:
    return space.low <= value <= space.high if isinstance(space, Range) else value in space


def _ends(space: Space) -> tuple[float, float]:
    return (space.low, space.high) if isinstance(space, Range) else (min(space), max(space))


def _nearest(space: Space, value: float) -> float:
    if isinstance(space, Range):
        return min(max(value, space.low), space.high)
    return min(space, key=lambda listed: abs(math.log(listed / value)))
