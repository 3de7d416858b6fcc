"""Models with an adapter as files: small, and worth nothing without the backbone that they were made for."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from stochca.adapters.adapted import AdaptedModel, Around
from stochca.backbones.loading import load_backbone
from stochca.config import CHOICES, code_of


def kinds() -> dict[str, type[AdaptedModel]]:
    """The models with an adapter, by the choice that makes them."""
    codes = {name: code_of(options) for name, options in CHOICES["adapter"].items()}
    return {name: code.model_class for name, code in codes.items() if issubclass(code, Around)}


def describe(model: AdaptedModel) -> dict[str, Any]:
    """What `load_adapted` has to know beside the tensors, as JSON knows it."""
    name = next(name for name, kind in kinds().items() if kind is type(model))
    return {"name": name, **model.options}


def load_adapted(
    path: Path, description: dict[str, Any], backbone: Path, *, num_classes: int
) -> AdaptedModel:
    """Put an adapter, the file of `AdaptedModel.adapter_state`, on the model of a backbone folder.

    Raises:
        UserError: the backbone's folder is incomplete or damaged.
        RuntimeError: the adapter does not fit it.
    """
    options = {key: value for key, value in description.items() if key != "name"}
    model = kinds()[description["name"]](load_backbone(backbone, num_classes=num_classes), **options)
    model.load_adapter_state(load_file(path))
    return model.eval()
