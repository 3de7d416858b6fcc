"""params.yaml, typed: unknown keys, values out of range and nonsensical methods are refused by path.

Everything a stage needs to know is read here, before any heavy import and before any work.
"""

import dataclasses
import difflib
import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from pipeline.config.extensions import load_extensions
from pipeline.config.protocol_rules import check_protocol
from pipeline.config.renamed import refuse_renamed
from pipeline.config.sections import (
    Backbone,
    Compare,
    Dataset,
    MethodName,
    Pretune,
    Promotion,
    Protocol,
    Section,
    Tracking,
    Tune,
    Workers,
)
from pipeline.config.tuned import BEST, TunedCrossAttention, is_tuned
from pipeline.runtime.paths import PARAMS_FILE
from stochca.config import CHOICES, SEVERAL, Method, StochasticCrossAttention
from stochca.config.training import Training
from stochca.errors import UserError

Model = TypeVar("Model", bound=BaseModel)


class Params(Section):
    extensions: list[str] = Field(default_factory=list)  # files in extensions/, imported first
    image_size: int = Field(ge=8)  # pixels, side of the square the backbone sees
    resize: int | None = Field(None, ge=8)  # pixels; of the square that image_size is cropped out of
    backbone: Backbone
    teachers: dict[MethodName, Backbone] = Field(default_factory=dict)  # for attention.teacher
    dataset: Dataset
    training: Training
    methods: dict[MethodName, Method]
    protocol: Protocol
    compare: Compare
    workers: Workers
    tune: Tune
    pretune: Pretune
    promotion: Promotion
    tracking: Tracking

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthands(cls, raw: Any) -> Any:
        """``average: swad`` stands for ``average: {name: swad}``."""
        refuse_renamed(raw)
        if isinstance(raw, Mapping) and isinstance(raw.get("methods"), Mapping):
            methods = {name: _expand_method(f"methods.{name}", m) for name, m in raw["methods"].items()}
            raw = {**raw, "methods": methods}
        if isinstance(raw, Mapping) and isinstance(raw.get("tune"), Mapping) and "method" in raw["tune"]:
            method = _expand_method("tune.method", raw["tune"]["method"])
            raw = {**raw, "tune": {**raw["tune"], "method": method}}
        return raw

    @model_validator(mode="after")
    def _resize_holds_the_crop(self) -> "Params":
        if self.resize is not None and self.resize < self.image_size:
            raise ValueError(
                f"resize {self.resize} is smaller than image_size {self.image_size}, which is cropped out "
                "of it; raise it, or set it to null"
            )
        return self

    @model_validator(mode="after")
    def _methods_exist(self) -> "Params":
        for key, names in (
            ("protocol.baseline", self.protocol.baseline),
            ("the stage stochca", ["stochca"]),
            ("protocol.combined", self.protocol.combined),
            ("compare.reference", [self.compare.reference]),
            ("promotion.method", {self.promotion.method} - {"best"}),
        ):
            for name in names:
                if name not in self.methods:
                    raise ValueError(
                        f"{key} names the method {name!r}, which methods does not define; "
                        f"defined are {', '.join(self.methods)}"
                    )
        if self.compare.reference not in self.protocol.methods:
            raise ValueError(
                f"compare.reference {self.compare.reference!r} is not trained; add it to protocol.baseline "
                f"or choose one of {', '.join(self.protocol.methods)}"
            )
        for name in self.compare.analysed:
            if name not in self.protocol.methods:
                raise ValueError(
                    f"compare.analysed names {name!r}, which is not trained; choose among "
                    f"{', '.join(self.protocol.methods)}"
                )
            if not self.methods[name].adapter.changes_backbone:
                raise ValueError(
                    f"compare.analysed names {name!r}, whose adapter {self.methods[name].adapter.name!r} "
                    "leaves the blocks as they were pretrained; choose methods that train them"
                )
        if self.promotion.method not in ("best", *self.protocol.methods):
            raise ValueError(
                f"promotion.method {self.promotion.method!r} is not trained; choose best or one of "
                f"{', '.join(self.protocol.methods)}"
            )
        return self

    @model_validator(mode="after")
    def _teachers_exist(self) -> "Params":
        for name, method in self.methods.items():
            teacher = getattr(method.attention, "teacher", None)
            if teacher is not None and teacher not in self.teachers:
                raise ValueError(
                    f"methods.{name}.attention.teacher is {teacher!r}, which teachers does not define; "
                    f"defined are {', '.join(self.teachers) or 'none'}; null means the backbone itself"
                )
        return self

    @model_validator(mode="after")
    def _protocol_suits_the_rest(self) -> "Params":
        check_protocol(self)
        return self

    @property
    def search_target(self) -> str:
        """The target that the stage `tune` searches for."""
        return self.tune.target or self.protocol.targets[0]

    @model_validator(mode="after")
    def _tuned_methods_wait_for_the_search(self) -> "Params":
        tuned = [name for name in self.protocol.methods if is_tuned(self.methods[name])]
        for name in tuned:
            if name in self.protocol.baseline:
                raise ValueError(
                    f"methods.{name}.attention.prob is tuned, but the stage baseline does not wait for the "
                    "search; move the method from protocol.baseline to protocol.combined"
                )
            if self.protocol.stochca_after != str(BEST):
                raise ValueError(
                    f"methods.{name}.attention.prob is tuned, so its stage must wait for the search; set "
                    f"protocol.stochca_after: {BEST}"
                )
        return self

    @model_validator(mode="after")
    def _numbers_are_finite(self) -> "Params":
        _refuse_infinite(self.model_dump())
        return self

    @model_validator(mode="after")
    def _overrides_are_valid(self) -> "Params":
        for name in self.methods:
            prefix = f"methods.{name}.training."
            try:
                training = self.training_of(name)
            except ValidationError as error:
                raise ValueError(_sentence(error, Training, prefix)) from None
            _refuse_infinite(dataclasses.asdict(training), prefix)
        try:
            training = self.training_with(self.tune.training)
            _refuse_infinite(dataclasses.asdict(training), "tune.training.")
        except ValidationError as error:
            raise ValueError(_sentence(error, Training, "tune.training.")) from None
        try:
            _refuse_infinite(
                dataclasses.asdict(self.training_with(self.pretune.training)), "pretune.training."
            )
        except ValidationError as error:
            raise ValueError(_sentence(error, Training, "pretune.training.")) from None
        if self.tune.grace_steps > training.steps:
            raise ValueError(
                f"tune.grace_steps {self.tune.grace_steps} must not be above the {training.steps} steps that "
                "a trial trains (tune.training.steps, or training.steps)"
            )
        if (lowest := self.tune.lowest_lr) is not None and lowest < training.min_lr:
            raise ValueError(f"tune.lr goes down to {lowest}, below training.min_lr {training.min_lr}")
        return self

    @model_validator(mode="after")
    def _workers_share_batches(self) -> "Params":
        for name in self.methods:
            training = self.training_of(name)
            if training.batch_size % (training.accumulate * self.workers.num_workers):
                raise ValueError(
                    f"workers.num_workers {self.workers.num_workers} times accumulate {training.accumulate} "
                    f"must divide the batch_size {training.batch_size} of the method {name}"
                )
            share = training.batch_size // (training.accumulate * self.workers.num_workers)
            if share % 2 and (training.augmentation.mixup or training.augmentation.cutmix):
                raise ValueError(
                    f"workers.num_workers {self.workers.num_workers} leaves micro-batches of {share} images "
                    f"to the method {name}; they must be even, because mixup and cutmix pair images up"
                )
            if name in self.protocol.methods:
                try:
                    self.methods[name].check_training(training, micro_batch=share, refit=self.protocol.refit)
                except ValueError as error:
                    raise ValueError(f"methods.{name}.{error}") from None
        return self

    def training_of(self, method: str) -> Training:
        """The training settings of a method: the common ones under its own overrides."""
        return self.training_with(self.methods[method].training)

    def training_with(self, overrides: Mapping[str, Any]) -> Training:
        """The common training settings under some overrides."""
        common = dataclasses.asdict(self.training)
        augmentation = overrides.get("augmentation", {})
        if isinstance(augmentation, Mapping):  # anything else is refused below
            augmentation = {**common["augmentation"], **augmentation}
        return _adapter(Training).validate_python({**common, **overrides, "augmentation": augmentation})


_adapter = cache(TypeAdapter)  # of a dataclass; making one costs more than what it then checks


def _expand_method(path: str, method: Any) -> Any:
    """Turn each choice, a name or a mapping with a name, into its dataclass."""
    if method is None:
        return {}
    if not isinstance(method, Mapping):
        return method
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
        return _adapter(chosen).validate_python(options)
    except ValidationError as error:
        raise ValueError(_sentence(error, chosen, prefix=f"{path}.")) from None


def _refuse_infinite(values: Mapping[str, Any], prefix: str = "") -> None:
    """Raise ValueError for .inf and .nan, which comparisons with a limit may let pass."""
    for path, value in _leaves(values, prefix):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{path} must be a finite number, found {value}")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Everything that is no mapping and no list, with its path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{path}{key}.")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}{index}.")
    else:
        yield path.removesuffix("."), value


class _Loader(yaml.SafeLoader):
    """Leaves true, no, on and their like as text: fields that are booleans read them, numbers refuse them."""


_Loader.yaml_implicit_resolvers = {
    first: [resolver for resolver in resolvers if resolver[0] != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check the whole file.

    Raises:
        UserError: the file is missing, is no YAML mapping, or breaks a rule; the sentence names the
            key by its path, what was found and what is allowed.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run from the project's folder, or create it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read as YAML: {' '.join(str(error).split())}") from None
    return parse_params(text, str(path))


def parse_params(text: str, subject: str) -> Params:
    """Check the text of a params.yaml, which errors call `subject`; as `load_params`."""
    try:
        raw = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{subject} can't be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise UserError(
            f"{subject} must hold sections such as training: and methods:, found {type(raw).__name__}"
        )
    load_extensions(raw.get("extensions", []), subject)
    return validated(Params, raw, subject)


def validated(model: type[Model], raw: Any, subject: str) -> Model:
    """Raise `UserError` in one sentence that starts with `subject` where `raw` is no such model."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{subject}: {_sentence(error, model)}") from None


def _sentence(error: ValidationError, model: type, prefix: str = "") -> str:
    """The first error in plain words: the key's path, what was found, what is allowed."""
    first = error.errors()[0]
    location = first["loc"]
    if location[-1:] in (("int",), ("float",)):  # pydantic's name for the part of a union, no key
        location = location[:-1]
    path = (prefix + ".".join(str(part) for part in location)).rstrip(".")
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        allowed = _keys_at(model, location[:-1])
        nearest = difflib.get_close_matches(str(location[-1]), allowed, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"allowed here are {', '.join(allowed)}"
        return f"unknown key {path!r}; {hint}"
    if first["type"] in ("missing", "missing_argument"):
        return f"the key {path!r} is missing"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if first["type"] == "value_error":
        if path and message.split()[0] in _keys_at(model, location):
            return f"{path}.{message}"
        return f"{path}: {message}" if path else message
    if first["type"] == "string_pattern_mismatch":  # the names of methods are the only ones with a pattern
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
