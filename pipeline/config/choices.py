"""The choices of a method, written as a name or as a mapping with a name, made the options they stand for.

``average: swad`` stands for ``average: {name: swad}``. Extensions may have registered more of them, so that
which there are is known only when the file is read.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.config.sentences import sentence
from pipeline.config.tuned import TunedCrossAttention
from stochca.config import CHOICES, SEVERAL, StochasticCrossAttention

adapter = cache(TypeAdapter)  # of a dataclass; making one costs more than what it then checks


def with_choices_made(method: Any, path: str) -> Any:
    """The mapping of a method with options in place of what was written for them.

    Raises:
        ValueError: there is no such choice, its options break a rule, or its key has another name today.
    """
    if method is None:
        return {}
    if not isinstance(method, Mapping):
        return method
    if "train" in method:
        raise ValueError(f"the key '{path}.train' is called 'adapter' now; rename it")
    return {
        key: _chosen(f"{path}.{key}", key, value) if key in CHOICES else value
        for key, value in method.items()
    }


def _chosen(path: str, key: str, value: Any) -> Any:
    if key not in SEVERAL:
        return _choice(path, CHOICES[key], value)
    if not isinstance(value, list):
        raise ValueError(f"{path} must be a list, found {value!r}")
    return tuple(_choice(f"{path}.{place}", CHOICES[key], item) for place, item in enumerate(value))


def _choice(path: str, classes: Mapping[str, type], value: Any) -> Any:
    options = {"name": value} if isinstance(value, str) else value
    allowed = ", ".join(classes)
    if not isinstance(options, Mapping) or "name" not in options:
        raise ValueError(f"{path} must be one of {allowed}, or a mapping with such a name, found {value!r}")
    if not isinstance(options["name"], str) or options["name"] not in classes:
        raise ValueError(f"{path} must be one of {allowed}, found {options['name']!r}")
    chosen = classes[options["name"]]
    if isinstance(options.get("schedule"), str):
        options = {**options, "schedule": {"name": options["schedule"]}}
    if options.get("prob") == "tuned" and chosen is StochasticCrossAttention:
        options = {key: value for key, value in options.items() if key != "prob"}
        chosen = TunedCrossAttention
    try:
        return adapter(chosen).validate_python(options)
    except ValidationError as error:
        raise ValueError(sentence(error, chosen, prefix=f"{path}.")) from None
