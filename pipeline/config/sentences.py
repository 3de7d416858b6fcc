"""What pydantic finds wrong with a file, in one plain sentence."""

import dataclasses
import difflib
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from stochca.errors import UserError

Model = TypeVar("Model", bound=BaseModel)
RENAMED = {  # keys of earlier versions, which were numbers of steps
    "warmup_steps": ("warmup", "a share of the steps, such as 0.1"),
    "eval_every": ("evaluations", "their number in a run, such as 10"),
    "checkpoint_every": ("checkpoints", "their number in a run, such as 10"),
    "grace_steps": ("grace", "a share of a trial's steps, such as 0.5"),
}
UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")  # pydantic's types of an unknown key


def validated(model: type[Model], raw: Any, subject: str) -> Model:
    """Raise `UserError` in one sentence that starts with `subject` where `raw` is no such model."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{subject}: {sentence(error, model)}") from None


def sentence(error: ValidationError, model: type, prefix: str = "") -> str:
    """The first error in plain words: the key's path, what was found, what is allowed."""
    # A mistyped key is missing under its right name too, and is what the user wants to hear of.
    found = error.errors()
    first = next((each for each in found if each["type"] in UNKNOWN), found[0])
    location = first["loc"]
    if location[-1:] in (("int",), ("float",)):  # pydantic's name for the part of a union, no key
        location = location[:-1]
    path = (prefix + ".".join(str(part) for part in location)).rstrip(".")
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    match first["type"]:
        case kind if kind in UNKNOWN and location[-1] in RENAMED:
            name, meaning = RENAMED[str(location[-1])]
            return f"the key {path!r} is called {name!r} now, and says {meaning}; write that instead"
        case kind if kind in UNKNOWN:
            allowed = _keys_at(model, location[:-1])
            nearest = difflib.get_close_matches(str(location[-1]), allowed, n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"allowed here are {', '.join(allowed)}"
            return f"unknown key {path!r}; {hint}"
        case "missing" | "missing_argument":
            return f"the key {path!r} is missing"
        case "value_error":
            if path and message.split()[0].rstrip(",") in _keys_at(model, location):
                return f"{path}.{message}"
            return f"{path}: {message}" if path else message
        case "finite_number":
            return f"{path} must be a finite number, found {first['input']}"
        case "string_pattern_mismatch":  # the names of methods are the only ones with a pattern
            path = path.removesuffix(f".{first['input']}.[key]")
            return (
                f"{path}: the name {first['input']!r} may only hold letters, digits, _ + and -, "
                "and must not start with + or -"
            )
    return f"{path}: {message[0].lower()}{message[1:]}, found {first['input']!r}"


def _keys_at(model: Any, location: tuple[int | str, ...]) -> list[str]:
    """The keys that are allowed at a place in the params, found by walking the types."""
    for part in location:
        hints = _annotations(model)
        if part in hints:
            model = hints[str(part)]
        elif get_origin(model) in (dict, list, tuple):
            model = get_args(model)[-1]
    return list(_annotations(model))


def _annotations(model: Any) -> dict[str, Any]:
    if isinstance(model, type) and issubclass(model, BaseModel):
        return {name: field.annotation for name, field in model.model_fields.items()}
    if dataclasses.is_dataclass(model):
        return {field.name: field.type for field in dataclasses.fields(model)}
    return {}
