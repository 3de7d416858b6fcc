"""A trained model on disk: plain timm weights and a card that says how to use them."""

import json
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors.torch import load_file

from pipeline.files import sha256, write_json
from stochca._typing import TimmModule
from stochca.backbones import BackboneCard, pooling_options
from stochca.checkpoint import save_weights
from stochca.errors import UserError
from stochca.loaders import Preprocessing

FOLDER = Path("models")
WEIGHTS = "model.safetensors"
CARD = "model.json"


@dataclass(frozen=True)
class TrainedModel:
    """A plain timm model in evaluation mode, and its card."""

    model: TimmModule
    card: dict[str, Any]

    @property
    def classes(self) -> list[str]:
        return self.card["classes"]

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(
            self.card["image_size"],
            tuple(self.card["mean"]),
            tuple(self.card["std"]),
            self.card["interpolation"],
            self.card.get("resize"),
        )


def save_trained(
    folder: Path,
    student: TimmModule,
    backbone: BackboneCard,
    *,
    name: str,
    method: str,
    classes: list[str],
    mlflow_run_id: str,
) -> None:
    """Write weights and card into an existing folder."""
    save_weights(folder / WEIGHTS, student.state_dict())
    preprocessing = Preprocessing.of(backbone)
    card = {
        "name": name,
        "method": method,
        "architecture": backbone.architecture,
        # Together with the architecture and image_size, what timm.create_model needs to make this model.
        "options": pooling_options(student),
        "image_size": backbone.image_size,
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "interpolation": backbone.interpolation,
        "resize": backbone.resize,
        # What timm.data.create_transform needs for the same.
        "crop_pct": preprocessing.crop_pct,
        "crop_mode": preprocessing.crop_mode,
        "classes": classes,
        "weights_sha256": sha256(folder / WEIGHTS),
        "backbone": backbone.to_dict(),
        "mlflow_run_id": mlflow_run_id,
    }
    write_json(folder / CARD, card)


def load_trained(folder: Path) -> TrainedModel:
    """Read a model that a training stage wrote.

    Raises:
        UserError: the folder is missing or damaged, or holds other weights than its card says.
    """
    import timm

    try:
        content = (folder / CARD).read_bytes()
        digest = sha256(folder / WEIGHTS)
    except OSError as error:
        name = error.filename or folder
        raise UserError(
            f"{folder} holds no trained model: {name} can't be read ({error.strerror}); {_available()}"
        ) from None
    try:
        card = json.loads(content)
        if digest != card["weights_sha256"]:
            raise ValueError(f"the sha256 of {WEIGHTS} is {digest}, in {CARD} it is {card['weights_sha256']}")
        with torch.random.fork_rng(devices=[]):
            model = timm.create_model(
                card["architecture"],
                img_size=card["image_size"],
                num_classes=len(card["classes"]),
                **card["options"],
            )
        expected = pooling_options(model)
        if card["options"] != expected:
            raise ValueError(f"{CARD} has the options {card['options']}, where {expected} are needed")
        model.load_state_dict(load_file(folder / WEIGHTS))
        trained = TrainedModel(model.eval(), card)
        trained.preprocessing.evaluation()  # so that what is wrong with it is found here
    except Exception as error:  # timm fails in many ways on a card that is not what it should be
        reason = f"{CARD} has no {error}" if isinstance(error, KeyError) else shorten(str(error), 300)
        raise UserError(
            f"{folder} is damaged: {reason}; run `dvc checkout {folder}` or train it again"
        ) from None
    return trained


def _available() -> str:
    models = sorted(str(path.parent) for path in FOLDER.glob(f"*/{CARD}"))
    if not models:
        return f"trained models are the folders in {FOLDER}/, which `dvc repro` makes"
    return f"trained models are {', '.join(models[:8])}{', ...' if len(models) > 8 else ''}"
