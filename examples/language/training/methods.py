"""What of the backbone learns, by `adapt:` of a method in params.yaml."""

from functools import singledispatch
from pathlib import Path
from typing import Any

from torch import nn

from examples.language.settings import Full, Lora, Section, Stochca, Toast
from stochca.errors import UserError
from stochca.language import TOAST, StochCA


@singledispatch
def build(method: Section, model: Any, decoders: Path | None) -> nn.Module:
    """The module that the Trainer trains: `model`, or one around it.

    Args:
        decoders: pre-tuned ones of TOAST; None starts with what they emit at zero, and the model as it is.

    Raises:
        UserError: the method does not suit the model.
    """
    raise TypeError(type(method).__name__)


@build.register
def _(method: Full, model: Any, decoders: Path | None) -> nn.Module:
    module: nn.Module = model
    return module


@build.register
def _(method: Lora, model: Any, decoders: Path | None) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=method.rank, lora_alpha=method.alpha, target_modules=list(method.layers), task_type="CAUSAL_LM"
    )
    try:
        module: nn.Module = get_peft_model(model, config)
    except ValueError as error:
        raise UserError(f"LoRA's layers {', '.join(method.layers)} don't suit the model: {error}") from None
    return module


@build.register
def _(method: Toast, model: Any, decoders: Path | None) -> nn.Module:
    return TOAST(model, rank=method.rank, alpha=method.alpha, decoders=decoders, plain_start=decoders is None)


@build.register
def _(method: Stochca, model: Any, decoders: Path | None) -> nn.Module:
    return StochCA(model, prob=method.prob)


def save(module: Any, folder: Path) -> None:
    """Write a trained module as `transformers`, `peft` or the library loads it: a model, or an adapter."""
    (module.student if isinstance(module, StochCA) else module).save_pretrained(folder)
    if hasattr(module, "peft_config"):
        (folder / "README.md").unlink(missing_ok=True)  # peft's, with nothing filled in
