"""Whether a run was trained with what params.yaml asks for now."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from pipeline.config.params import Params
from stochca.config.training import deciding_settings


def other_setting(params: Params, method: str, description: Mapping[str, Any]) -> str | None:
    """A setting that decides the weights and that a run of `method` had otherwise, in words; None: none is.

    Every stage reads params.yaml when it starts: one that is edited while others wait for their turn leaves
    runs from before beside runs from after.

    Args:
        description: the run's, which `run.json` holds.

    Raises:
        UserError: the method is tuned and there is no result of the search.
    """
    wanted = _asked_for(params, method)
    choices = {key: value for key, value in description["config"].items() if key != "training"}
    found = {
        "protocol": {"name": description["protocol"], "refit": description["refit"]},
        f"methods.{method}": choices,
        "training": {key: description["training"].get(key) for key in wanted["training"]},
    }
    return _first_difference(found, wanted)


def _first_difference(before: Any, now: Any, path: str = "") -> str | None:
    """What is null on one side may be left out on the other."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = {**now, **before}
        told = (_first_difference(before.get(k), now.get(k), f"{path}.{k}".lstrip(".")) for k in keys)
        return next(filter(None, told), None)
    if before == now:
        return None
    return f"{path} was {json.dumps(before)}, and params.yaml says {json.dumps(now)}"


def _asked_for(params: Params, name: str) -> dict[str, dict[str, Any]]:
    """The settings of a method that decide the weights, as JSON has them."""
    method, settings = params.trained_with(name)
    training = deciding_settings(settings)
    if training["steps"] is None:  # a run tells how many the epochs came to
        del training["steps"]
    choices = dataclasses.asdict(method)
    del choices["training"]  # a part of the training settings
    asked = {
        "protocol": {"name": params.protocol.name, "refit": params.protocol.refit},
        f"methods.{name}": choices,
        "training": training,
    }
    known: dict[str, dict[str, Any]] = json.loads(json.dumps(asked))
    return known
