"""params.yaml of this example, typed and strict: `python -m examples.language.settings` checks it alone."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, SerializeAsAny, ValidationError, field_validator, model_validator

from examples.language.paths import BACKBONE, CARD, DECODERS, HERE, MANIFEST, PARAMS_FILE, PREPARED, PRETUNED
from pipeline.config.sections import MethodName, Section
from pipeline.config.sentences import sentence, validated
from pipeline.config.yaml_text import read_yaml
from pipeline.runtime.boundary import run
from pipeline.runtime.files import sha256
from pipeline.runtime.kept import files_kept
from stochca.errors import UserError

UNTUNED = "untuned"  # the backbone as it is, which stands beside the methods
READ = (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt")  # of a model's folder, by transformers
WHEEL = r"wheel:[A-Za-z0-9._-]+==[^\s=]+"


class Backbone(Section):
    model: str  # wheel:NAME==VERSION with one .gguf file | folder:PATH of transformers | hub:OWNER/NAME
    sha256: str | None  # of the wheel; None: not checked

    @model_validator(mode="after")
    def _is_a_place(self) -> "Backbone":
        if not re.fullmatch(rf"{WHEEL}|folder:.+|hub:[\w.-]+(/[\w.-]+)?", self.model):
            raise ValueError(
                f"model must be wheel:NAME==VERSION, folder:PATH or hub:OWNER/NAME, found {self.model!r}"
            )
        if self.sha256 is not None and not self.model.startswith("wheel:"):
            raise ValueError(f"sha256 is that of a wheel, but model is {self.model}; set it to null")
        return self

    @property
    def source_sha256(self) -> dict[str, str]:
        """Of a folder, the sha256 of each file that is read: DVC does not watch them."""
        kind, _, location = self.model.partition(":")
        found = sorted(Path(location).expanduser().glob("*")) if kind == "folder" else []
        return {path.name: sha256(path) for path in found if path.suffix in READ}


class Data(Section):
    source: str  # wheel:chatterbot-corpus==VERSION | jsonl
    sha256: str | None  # of the wheel; None: not checked
    language: str = Field(pattern=r"^[a-z]+$")  # of the corpus: the name of a folder in it
    root: str  # jsonl: the folder with *.jsonl
    system: str | None  # what every prompt begins with; None: what the chat template says
    max_length: int = Field(ge=8)  # tokens of a prompt and its answer
    test: float = Field(gt=0, lt=1)  # share of the conversations that is held out
    split_seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _is_a_source(self) -> "Data":
        if self.source != "jsonl" and not re.fullmatch(r"wheel:chatterbot-corpus==[^\s=]+", self.source):
            raise ValueError(
                f"source must be wheel:chatterbot-corpus==VERSION or jsonl, found {self.source!r}"
            )
        return self


class Training(Section):
    """The common settings; a method may set its own learning rate and number of steps."""

    steps: int = Field(ge=1)  # optimiser steps
    batch_size: int = Field(ge=1)  # answers per step
    accumulate: int = Field(ge=1)  # micro-batches that a step is split into
    weight_decay: float = Field(ge=0)
    warmup: float = Field(ge=0, lt=1)  # share of the steps
    clip_grad: float = Field(gt=0)
    checkpoints: int = Field(ge=1)  # in a run; an interrupted one continues from the last
    gradient_checkpointing: bool
    precision: Literal["auto", "fp32", "bf16"]

    @model_validator(mode="after")
    def _batch_divides(self) -> "Training":
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate must divide batch_size, but {self.batch_size} can't be split into "
                f"{self.accumulate} equal parts"
            )
        return self


class Method(Section):
    """What is common to all; `adapt` says which it is."""

    adapt: str
    lr: float = Field(gt=0)  # peak learning rate
    steps: int | None = Field(None, ge=1)  # None: training.steps

    def trained_with(self, training: Training) -> dict[str, Any]:
        """All settings of a run, the common ones too."""
        return {**training.model_dump(), **self.model_dump(), "steps": self.steps or training.steps}


class Full(Method):
    adapt: Literal["full"]


class Lora(Method):
    adapt: Literal["lora"]
    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)
    layers: list[str] = Field(min_length=1)  # names of linear layers, such as q_proj


class Toast(Method):
    adapt: Literal["toast"]
    rank: int | None = Field(None, ge=1)  # TOAST-Lite: of the decoders' updates
    alpha: float = Field(4.0, gt=0)


class Stochca(Method):
    adapt: Literal["stochca"]
    prob: float = Field(ge=0, le=1)


KINDS: dict[str, type[Method]] = {
    "full": Full,
    "lora": Lora,
    "toast": Toast,
    "stochca": Stochca,
}  # by `adapt`


class Pretune(Section):
    decoders: str | None  # a file that was pre-tuned elsewhere, with TOAST.save_decoders
    steps: int = Field(ge=0)  # 0: no pre-tuning; what the decoders emit then starts at zero
    lr: float = Field(gt=0)
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _one_or_the_other(self) -> "Pretune":
        if self.decoders is not None and self.steps:
            raise ValueError(f"steps must be 0 beside decoders that are pre-tuned, found {self.steps}")
        return self


class Compare(Section):
    methods: list[MethodName] = Field(min_length=1)
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    reference: MethodName
    confidence: float = Field(gt=0.5, lt=1)
    answers: int = Field(ge=1)  # held-out answers, of all that there are, that are scored
    generated: int = Field(ge=1)  # of these, how many are written by the model as well
    new_tokens: int = Field(ge=1)  # at most, of a written answer
    batch_size: int = Field(ge=1)  # answers at once

    @field_validator("methods", "seeds")
    @classmethod
    def _differ(cls, values: list[Any]) -> list[Any]:
        if len(set(values)) < len(values):
            raise ValueError(f"must all differ, found {values}")
        return values

    @property
    def answering(self) -> dict[str, int]:
        """What of it decides the answers of a run."""
        return self.model_dump(include={"answers", "generated", "new_tokens", "batch_size"})


class Tracking(Section):
    experiment: str = Field(min_length=1)


class Settings(Section):
    backbone: Backbone
    data: Data
    training: Training
    methods: dict[MethodName, SerializeAsAny[Method]]
    pretune: Pretune
    compare: Compare
    tracking: Tracking

    @model_validator(mode="before")
    @classmethod
    def _read_methods(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping) or not isinstance(raw.get("methods"), Mapping):
            return raw
        return {**raw, "methods": {name: _method(name, each) for name, each in raw["methods"].items()}}

    @model_validator(mode="after")
    def _methods_are_defined(self) -> "Settings":
        if UNTUNED in self.methods:
            raise ValueError(f"methods.{UNTUNED} stands for the backbone as it is; rename the method")
        for name in self.compare.methods:
            if name not in self.methods:
                raise ValueError(
                    f"compare.methods names {name!r}, which methods does not define; defined are "
                    + ", ".join(self.methods)
                )
        if self.compare.reference not in self.compare.methods:
            raise ValueError(
                f"compare.reference {self.compare.reference!r} is not compared; add it to compare.methods, "
                f"or choose one of {', '.join(self.compare.methods)}"
            )
        return self

    def of_run(self, name: str) -> dict[str, Any]:
        """All that decide the outcome of a method, or of the backbone as it is."""
        untuned = {"precision": self.training.precision}
        own = untuned if name == UNTUNED else self.methods[name].trained_with(self.training)
        return own | {f"compare.{key}": value for key, value in self.compare.answering.items()}


def _method(name: str, raw: Any) -> Method:
    """Raise ValueError, with the key's path, where it is no method."""
    adapt = raw.get("adapt") if isinstance(raw, Mapping) else None
    if adapt not in KINDS:
        raise ValueError(f"methods.{name}.adapt must be one of {', '.join(KINDS)}, found {adapt!r}")
    try:
        return KINDS[adapt].model_validate(raw)
    except ValidationError as error:
        raise ValueError(sentence(error, KINDS[adapt], f"methods.{name}.")) from None


def load_settings(path: Path = PARAMS_FILE) -> Settings:
    """Read and check the whole file.

    Raises:
        UserError: it is missing, no YAML mapping, or breaks a rule; the sentence names the key by its path.
    """
    try:
        raw = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run from the project's folder, or create it") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} can't be read as YAML: {' '.join(str(error).split())}") from None
    return validated(Settings, raw, str(path))


@contextmanager
def settings_kept(
    settings: Settings, view: Callable[[Settings], Any], what: str, *places: Path
) -> Iterator[None]:
    """See afterwards that what the block has worked with still stands in the file, for DVC reads it then.

    So it is with the files and folders `places`.

    Raises:
        UserError: it does not.
    """
    with files_kept(what, *places):
        yield
    try:
        now = view(load_settings())
    except UserError:
        now = None
    if now != view(settings):
        raise UserError(
            f"{PARAMS_FILE} was changed while {what} was under way; its result is there, but not recorded by "
            "DVC: run the same command again for the new settings"
        )


def digests_of_data(*, decoders: bool) -> dict[str, str | None]:
    """Of what a run begins with, as it lies in data/ now; `decoders` are of those alone that train."""
    found = {
        "backbone": _read(BACKBONE / CARD).get("weights_sha256"),
        "examples": _read(PREPARED / MANIFEST).get("fingerprint"),
    }
    pretuned = PRETUNED / DECODERS
    return found | ({"decoders": sha256(pretuned) if pretuned.exists() else None} if decoders else {})


def check_taken(settings: Settings) -> None:
    """Raise `UserError` where a model's folder or decoders changed after a stage took them."""
    model, decoders = settings.backbone.model, settings.pretune.decoders
    card = _read(BACKBONE / CARD)
    now = settings.backbone.source_sha256 if card.get("source") == model else {}
    if now and card.get("source_sha256", now) != now:
        raise _changed("backbone.model", model, BACKBONE, "backbone")
    if decoders is not None and _read(PRETUNED / CARD).get("decoders") == decoders:
        own, taken = Path(decoders), PRETUNED / DECODERS
        if own.exists() and taken.exists() and sha256(own) != sha256(taken):
            raise _changed("pretune.decoders", decoders, PRETUNED, "pretune")


def _read(file: Path) -> dict[str, Any]:
    """Of a stage before; empty where it did not run."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def _changed(key: str, place: str, folder: Path, stage: str) -> UserError:
    return UserError(
        f"{key}: {place} has changed since {folder} was made of it, which DVC does not see; to take it as it "
        f"is now: dvc repro --force --single-item {HERE}/dvc.yaml:{stage}"
    )


def main() -> None:
    settings = load_settings()
    check_taken(settings)
    print(f"{PARAMS_FILE}: {len(settings.compare.methods)} methods")


if __name__ == "__main__":
    run(main)
