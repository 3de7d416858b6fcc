"""Models with an adapter as files: small, and worth nothing without the backbone that they were made for."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from stochca.adapters.adapted import AdaptedModel
from stochca.adapters.toast import TOAST
from stochca.adapters.vpt import VPT
from stochca.backbones.loading import load_backbone

KINDS: dict[str, type[AdaptedModel]] = {"vpt": VPT, "toast": TOAST}


def describe(model: AdaptedModel) -> dict[str, Any]:
    """What `load_adapted` has to know beside the tensors, as JSON knows it."""
    names = {kind: name for name, kind in KINDS.items()}
    return {"name": names[type(model)], **model.options}


def load_adapted(
    path: Path, description: dict[str, Any], backbone: Path, *, num_classes: int
) -> AdaptedModel:
    """Put an adapter, the file of `AdaptedModel.adapter_state`, on the model of a backbone folder.

    Raises:
        UserError: the backbone's folder is incomplete or damaged.
        RuntimeError: the adapter does not fit it.
    """
    options = {key: value for key, value in description.items() if key != "name"}
    model = KINDS[description["name"]](load_backbone(backbone, num_classes=num_classes), **options)
    model.load_adapter_state(load_file(path))
    return model.eval()
