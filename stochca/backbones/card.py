"""What a backbone folder says about itself, for those who read that without waiting for torch and timm.

A backbone folder holds `model.safetensors`, a timm state dict whose positions fit the image size (with
the head of the weights' source, if it had one), and `card.json`, a `BackboneCard`; its `teachers/` further
backbone folders, by their names.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stochca.errors import UserError

WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "card.json"
OWN_BACKBONE = "backbone"  # in the folder of a model that is an adapter: its backbone's folder


@dataclass(frozen=True)
class BackboneCard:
    """What a backbone folder holds and where it comes from; the contents of `card.json`."""

    architecture: str  # timm's name
    source: str  # as in `backbone.weights`; for the hub with the repository's id
    source_sha256: str | None  # of the wheel or file
    weights_sha256: str  # of model.safetensors
    license: str | None
    parameters: int  # without the head
    blocks: int
    image_size: int  # pixels, side of the square
    patch_size: int  # pixels; of the first stage where there are several
    global_pool: str
    mean: tuple[float, ...]  # per channel, of pixel values from 0 to 1
    std: tuple[float, ...]
    interpolation: str  # for resizing images
    source_classes: int  # outputs of the head that the file holds; 0: it holds none
    resize: int | None = None  # pixels; images become this square before image_size is cropped from them

    @classmethod
    def from_file(cls, path: Path) -> "BackboneCard":
        """Read a `card.json`; raises `UserError` where it is missing or damaged."""
        try:
            values = json.loads(path.read_text())
            return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
        except FileNotFoundError:
            raise UserError(f"{path} is missing; make the backbone first: run the stage backbone") from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} is damaged ({error}); run the stage backbone again") from None

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it."""
        return {**dataclasses.asdict(self), "mean": list(self.mean), "std": list(self.std)}


def teacher_folder(backbone: Path, name: str) -> Path:
    """Where a teacher lies in a backbone folder: whatever has the backbone has its teachers."""
    return backbone / "teachers" / name
