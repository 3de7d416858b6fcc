"""What one training run is asked to do, and what decides its result."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from pipeline.config.sections import SEED_LIMIT, Protocol
from pipeline.runtime.paths import RUNS
from pipeline.tracking.labels import flatten
from pipeline.training.digests import code_sha256, digest_of, versions
from stochca.backbones.card import BackboneCard
from stochca.config import Method
from stochca.config.timetable import Timetable
from stochca.config.training import Training, deciding_settings
from stochca.errors import UserError

LOG = "log.jsonl"


@dataclass(frozen=True)
class Job:
    """What one training run is asked to do."""

    extensions: list[str]
    method_name: str
    target: str
    seed: int
    method: Method
    training: Training
    protocol: Protocol

    @property
    def name(self) -> str:
        return f"{self.method_name}-{self.target}-{self.seed}"

    @property
    def choices(self) -> dict[str, Any]:
        """The method's, but for its settings, which are part of `training`."""
        return {key: value for key, value in dataclasses.asdict(self.method).items() if key != "training"}

    @property
    def decides(self) -> dict[str, Any]:
        """What of params.yaml decides the weights."""
        return {
            "extensions": self.extensions,
            "method": self.choices,
            "training": deciding_settings(self.training),
            "protocol": [self.protocol.name, self.protocol.oracle, self.protocol.refit],
            "selection": self.protocol.selection,
            "target": self.target,
            "seed": self.seed,
        }


def plan(params: Params, method: str, target: str, seed: int) -> Job:
    """Look the method up.

    Raises:
        UserError: params.yaml defines no such method, or the protocol has no such target, or the seed is
            out of range, or the method is tuned and there is no result of the search.
    """
    if method not in params.methods:
        raise UserError(f"params.yaml defines no method {method!r}; defined are {', '.join(params.methods)}")
    if target not in params.protocol.targets:
        allowed = ", ".join(params.protocol.targets)
        raise UserError(f"protocol.targets in params.yaml has no target {target!r}; it has {allowed}")
    if not 0 <= seed < SEED_LIMIT:
        raise UserError(f"the seed must be at least 0 and below 2**63, found {seed}")
    return Job(params.extensions, method, target, seed, *params.trained_with(method), params.protocol)


def all_that_decides(
    job: Job,
    timetable: Timetable,
    backbone: dict[str, Any],
    dataset_fingerprint: str,
    precision: str,
    device_type: str,
    *,
    classes: Sequence[str],
    teacher: dict[str, Any] | None = None,
    teacher_precision: str | None = None,
) -> dict[str, Any]:
    """What decides the weights, code included."""
    return {
        **job.decides,
        "training": deciding_settings(job.training, timetable),
        "teacher": teacher,
        "backbone": backbone,  # the whole card: pooling and normalisation decide as much as the weights
        "dataset": dataset_fingerprint,
        "classes": list(classes),  # their names, of which zero_shot makes a head
        "precision": [precision, teacher_precision],
        "device": device_type,
        "code": code_sha256("train"),
        "versions": versions(),
    }


def work_folder(job: Job, decides: Mapping[str, Any]) -> Path:
    """The run's folder, which checkpoints share: named after all that decides the weights."""
    return RUNS / f"{job.name}-{digest_of(decides)}"


def settings_to_compare(
    job: Job, timetable: Timetable, card: BackboneCard, manifest: dict[str, Any]
) -> dict[str, Any]:
    """What runs are compared by in MLflow's UI: the method's choices, then its training settings."""
    return {
        "method": job.method_name,
        "seed": job.seed,
        "protocol": job.protocol.name,
        "selection": job.protocol.selection,
        "target": job.target,
        "backbone": card.architecture,
        "image_size": card.image_size,
        "dataset": manifest["dataset"],
        "domains": ",".join(manifest["domains"]),
        "train_fraction": manifest["train_fraction"],
        **{key.removesuffix(".name"): value for key, value in flatten(job.choices).items()},
        **flatten({**dataclasses.asdict(job.training), "steps": timetable.steps}, "training."),
    }
