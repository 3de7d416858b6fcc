"""params.yaml, typed: unknown keys, values out of range and nonsensical methods are refused by path.

Everything a stage needs to know is read here, before any heavy import and before any work.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from pipeline.config import rules
from pipeline.config.choices import adapter, with_choices_made
from pipeline.config.extensions import load_extensions
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
    ends,
)
from pipeline.config.sentences import sentence, validated
from pipeline.runtime.paths import PARAMS_FILE
from stochca.config import Method
from stochca.config.training import Training
from stochca.errors import UserError


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
    def _read_choices(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        if "train" in raw:
            raise ValueError("the key 'train' is called 'workers' now; rename it")
        methods, tune = raw.get("methods"), raw.get("tune")
        if isinstance(methods, Mapping):
            methods = {name: with_choices_made(each, f"methods.{name}") for name, each in methods.items()}
            raw = {**raw, "methods": methods}
        if isinstance(tune, Mapping) and "method" in tune:
            method = with_choices_made(tune["method"], "tune.method")
            raw = {**raw, "tune": {**tune, "method": method}}
        return raw

    @model_validator(mode="after")
    def _sections_agree(self) -> "Params":
        if self.resize is not None and self.resize < self.image_size:
            raise ValueError(
                f"resize {self.resize} is smaller than image_size {self.image_size}, which is cropped out "
                "of it; raise it, or set it to null"
            )
        rules.names_are_known(self.methods, self.protocol, self.compare, self.promotion)
        rules.teachers_are_known(self.methods, self.teachers)
        rules.targets_suit_the_dataset(self.protocol, self.dataset, self.tune)
        rules.stages_wait_for_what_they_read(self.methods, self.protocol)
        rules.refit_leaves_a_choice(self.protocol, self.promotion)
        return self

    @model_validator(mode="after")
    def _methods_can_be_trained(self) -> "Params":
        for name, method in self.methods.items():
            training = self._overridden(method.training, f"methods.{name}.training.")
            try:
                share = training.micro_batch(self.workers.num_workers)
            except ValueError as error:
                raise ValueError(f"workers.num_workers, with methods.{name}.training: {error}") from None
            if name not in self.protocol.methods:  # a common setting need not suit what is not trained
                continue
            try:
                method.check_training(training, micro_batch=share, refit=self.protocol.refit)
            except ValueError as error:
                raise ValueError(f"methods.{name}.{error}") from None
        self._overridden(self.pretune.training, "pretune.training.")
        return self

    @model_validator(mode="after")
    def _search_can_be_trained(self) -> "Params":
        tune = self.tune
        training = self._overridden(tune.training, "tune.training.")
        for rate in () if tune.lr is None else ends(tune.lr):
            try:
                self.training_with({**tune.training, "lr": rate})
            except ValidationError as error:
                raise ValueError(f"tune.lr: {sentence(error, Training)}") from None
        if tune.grace_steps > training.steps:
            raise ValueError(
                f"tune.grace_steps {tune.grace_steps} must not be above the {training.steps} steps that "
                "a trial trains (tune.training.steps, or training.steps)"
            )
        return self

    def _overridden(self, overrides: Mapping[str, Any], prefix: str) -> Training:
        """Raise ValueError, with the key's path, where settings are not valid over the common ones."""
        try:
            return self.training_with(overrides)
        except ValidationError as error:
            raise ValueError(sentence(error, Training, prefix)) from None

    @property
    def search_target(self) -> str:
        """The target that the stage `tune` searches for."""
        return self.tune.target or self.protocol.targets[0]

    def training_of(self, method: str) -> Training:
        """The training settings of a method: the common ones under its own overrides."""
        return self.training_with(self.methods[method].training)

    def training_with(self, overrides: Mapping[str, Any]) -> Training:
        """The common training settings under some overrides."""
        common = dataclasses.asdict(self.training)
        augmentation = overrides.get("augmentation", {})
        if isinstance(augmentation, Mapping):  # anything else is refused below
            augmentation = {**common["augmentation"], **augmentation}
        return adapter(Training).validate_python({**common, **overrides, "augmentation": augmentation})


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
