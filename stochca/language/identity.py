"""Which model something was made for: adapters and decoders are worth nothing without it."""

import hashlib
from typing import Any

import torch
from torch import nn

from stochca.errors import UserError
from stochca.language.support import LanguageModel


def identity_of(model: LanguageModel) -> dict[str, Any]:
    """What tells the model from others, as JSON knows it."""
    return {
        "class": type(model).__name__,
        "hidden_size": model.config.hidden_size,
        "layers": model.config.num_hidden_layers,
        "sha256": weights_sha256(model),
    }


def weights_sha256(model: nn.Module) -> str:
    """The sha256 of a model's parameters, with their names and shapes.

    They are taken as bf16, so that a model has the same whether it was loaded in fp32 or in bf16; in fp16 it
    is another. Takes some seconds per billion parameters.
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)}\n".encode())
        values = parameter.detach().to(torch.bfloat16).reshape(-1).cpu()
        digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_identity(made_for: dict[str, Any], model: LanguageModel, what: str) -> None:
    """Raise `UserError` where `what` was made for another model than this one."""
    found = {"hidden_size": model.config.hidden_size, "layers": model.config.num_hidden_layers}
    wanted = {name: made_for.get(name) for name in found}
    if wanted != found:
        raise UserError(
            f"{what} is for a model of width {wanted['hidden_size']} with {wanted['layers']} layers, but "
            f"this {type(model).__name__} has width {found['hidden_size']} and {found['layers']} layers; use "
            "the model that it was made for"
        )
    sha256 = weights_sha256(model)
    if made_for.get("sha256") != sha256:
        half = any(parameter.dtype == torch.float16 for parameter in model.parameters())
        in_fp16 = ", loaded as it was then: fp16, in which this one is, rounds its weights" if half else ""
        raise UserError(
            f"{what} was made for the {made_for.get('class')} whose weights have the sha256 "
            f"{made_for.get('sha256')}, but those of this {type(model).__name__} have {sha256}; use the "
            f"model that it was made for{in_fp16}"
        )
