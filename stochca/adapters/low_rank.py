"""Low-rank updates of linear layers through `peft`, in place, and merged when training is done.

A linear layer W learns as W + alpha/rank · B A, with A (rank, in) random and B (out, rank) zero at the start.
"""

import re
from importlib.util import find_spec

from torch import nn

from stochca._typing import TimmModule
from stochca.errors import UserError


def check_installed() -> None:
    """Raise `UserError` where `peft` is not there."""
    if find_spec("peft") is None:
        raise UserError("LoRA needs the package peft; install it with: pip install peft")


def inject(model: nn.Module, names: list[str], *, rank: int, alpha: float, dropout: float = 0.0) -> None:
    """Put LoRA into these linear layers of `model`, in place; nothing else of it learns afterwards."""
    check_installed()
    from peft import LoraConfig, inject_adapter_in_model

    # As an expression, because peft shortens long lists of names to what other layers may match too.
    exactly = "|".join(re.escape(name) for name in names)
    settings = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=f"({exactly})")
    inject_adapter_in_model(settings, model)
    for name in names:
        _add_biases_separately(model.get_submodule(name.rpartition(".")[0]), True)


def merge(model: nn.Module) -> None:
    """Add the updates to the weights; the linear layers are plain again, under their old names."""
    from peft.tuners.lora import LoraLayer

    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.get_base_layer())
            _add_biases_separately(model.get_submodule(parent), False)
    del model.peft_config


def _add_biases_separately(parent: TimmModule, wanted: bool) -> None:
    """Only then do attention layers with biases beside their `qkv` call it, instead of using its weight."""
    if hasattr(parent, "qkv_bias_separate"):
        parent.qkv_bias_separate = wanted
