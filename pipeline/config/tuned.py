"""`prob: tuned`: a method that takes what the search (stage `tune`) found."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.runtime.paths import BEST
from stochca.config import Method, StochasticCrossAttention
from stochca.errors import UserError, one_line


@dataclass(frozen=True)
class TunedCrossAttention(StochasticCrossAttention):
    """StochCA whose probability is read from `reports/tune/best.yaml` when the stage runs."""


class Best(BaseModel):
    """What the search found; the file may say more about it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    prob: float | tuple[float, ...]
    lr: float | None = None  # None: it was not searched


def is_tuned(method: Method) -> bool:
    return isinstance(method.attention, TunedCrossAttention)


def read_best(path: Path = BEST) -> Best:
    """What the search found.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return Best.model_validate(yaml.safe_load(path.read_text()))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run: dvc repro tune") from None
    except (OSError, yaml.YAMLError, ValidationError) as error:
        reason = one_line(error)
        raise UserError(f"{path} is damaged ({reason}); run: dvc repro --force tune") from None


def searched_otherwise(name: str, method: Method, searched: TunedCrossAttention) -> str | None:
    """A note where a tuned method attends otherwise than what the search varies the probability of.

    Args:
        name: the method's.
        searched: the search's own attention.
    """
    if not isinstance(method.attention, TunedCrossAttention) or method.attention == searched:
        return None
    own, other = vars(method.attention), vars(searched)
    names = ", ".join(option for option in own if own[option] != other[option])
    return (
        f"methods.{name}.attention.prob: the search finds it with other options ({names}) than this method "
        "has; what is searched stands in tune.method"
    )


def notes_on_what_was_found(method: Method, best: Best, lr: float) -> list[str]:
    """For the reader of a comparison with methods that are not tuned, which train at `lr` or set a rate."""
    probs = best.prob if isinstance(best.prob, tuple) else (best.prob,)
    notes = [] if any(probs) else ["prob: tuned found 0, so this is plain fine-tuning."]
    if best.lr not in (None, lr) and "lr" not in method.training:
        notes.append(
            f"The learning rate was searched along with prob ({best.lr:g}); a method that is not tuned and "
            f"sets none trains at {lr:g}, which may be a part of a difference to it."
        )
    return notes


def resolved(method: Method, best: Best) -> Method:
    """The method with the probability that was found, and with the rate, unless it sets one itself."""
    found: dict[str, Any] = {} if best.lr is None else {"lr": best.lr}
    options = vars(method.attention) | {"prob": best.prob}
    return dataclasses.replace(
        method,
        attention=StochasticCrossAttention(**options),
        training={**found, **method.training},
    )
