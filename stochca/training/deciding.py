"""What decides the weights that a run ends with. A checkpoint is continued where all of it is as it was."""

import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any

from stochca._typing import TimmModule
from stochca.compute.sampled import numbers_of
from stochca.config.training import Training, deciding_settings
from stochca.data.images import Images, labels_of
from stochca.data.preprocessing import Preprocessing
from stochca.errors import UserError
from stochca.timm_models.families import head_parameters
from stochca.training.inputs import Inputs

Deciding = dict[str, str]  # by what a sentence calls it
UNSAID = re.compile("^auto$|teacher_precision='auto'")  # what a precision was, in checkpoints of before


def what_decides(
    start: TimmModule, settings: Training, images: int, preprocessing: Preprocessing, seed: int
) -> Deciding:
    """Of any training; its precision is not `auto`. Of `start` the weights, but for the head, which may be
    a random one.
    """
    named: dict[str, Any] = {
        **{f"training.{key}": value for key, value in _settings(settings, images).items()},
        "the preprocessing": preprocessing,
        "the seed": seed,
        "the number of images": images,
        "the sha256 of the weights before training": _sha256_of_weights(start),
    }
    return {name: str(value) for name, value in named.items()}


def what_decides_fit(inputs: Inputs) -> Deciding:
    """Of what `fit` trains, `settled`; `inputs.student` is as it was given. Images on disk stay there."""
    method = {
        f"method.{field.name}": str(getattr(inputs.method, field.name))
        for field in dataclasses.fields(inputs.method)
        if field.name != "training"  # which the settings hold by now
    }
    given = [
        *(names if names is None else list(names) for names in (inputs.classes, inputs.domains)),
        *map(_known_labels, (inputs.train, inputs.validation)),
    ]
    return {
        **what_decides(inputs.student, inputs.settings, inputs.images, inputs.preprocessing, inputs.seed),
        **method,
        "selection": inputs.selection,
        "refit": str(inputs.refit),
        "the sha256 of labels, classes and domains": _sha256(str(given).encode()),
    }


def check_unchanged(then: Deciding, now: Deciding, folder: Path | None) -> None:
    """Raise `UserError` naming the first that differs. What a checkpoint of before did not say, passes."""
    for name, value in then.items():
        if now.get(name) != value and not UNSAID.search(value):
            raise UserError(
                f"{folder} holds a checkpoint of another training, where {name} was {value}, and now it is "
                f"{now.get(name)}; go on as that training began, or give another work_folder"
            )


def _settings(settings: Training, images: int) -> dict[str, Any]:
    return deciding_settings(settings, settings.timetable(images))


def _known_labels(images: Images) -> list[int] | None:
    """None where nothing but decoding all images would tell."""
    known = isinstance(images, list) or getattr(images, "known_labels", None) is not None
    return labels_of(images).tolist() if known else None


def _sha256_of_weights(model: TimmModule) -> str:
    head = head_parameters(model)
    return _sha256(numbers_of(p for p in model.parameters() if id(p) not in head).numpy().tobytes())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
