"""LoRA (Hu et al., ICLR 2022, arXiv 2106.09685) through `peft`, in place, and merged when it is done.

A linear layer W learns as W + alpha/rank · B A, with A (rank, in) random and B (out, rank) zero at the start.
"""

import copy
import re
from importlib.util import find_spec

from torch import nn

from stochca._typing import TimmModule
from stochca.adapters.adaptation import Adaptation, head_modules, unfreeze_heads
from stochca.errors import UserError


class LowRank(Adaptation):
    """LoRA on some linear layers; the head learns beside it, all of it."""

    def check(self, student: TimmModule) -> None:
        check_installed()
        target_names(student, self.config.targets)

    def adapt(self, student: TimmModule) -> TimmModule:
        config = self.config
        names = target_names(student, config.targets)
        inject(student, names, rank=config.rank, alpha=config.alpha, dropout=config.dropout)
        unfreeze_heads(student)
        return student

    def plain(self, adapted: TimmModule) -> TimmModule:
        return self.finish(copy.deepcopy(adapted))

    def finish(self, adapted: TimmModule) -> TimmModule:
        merge(adapted)
        return adapted


def target_names(model: TimmModule, targets: tuple[str, ...]) -> list[str]:
    """The linear layers whose names end with one of `targets`, the head never.

    Convolutions of single pixels are linear layers too. Where queries, keys and values have a layer each,
    `qkv` means all three.

    Raises:
        UserError: a target matches none; the sentence names the linear layers that there are.
    """
    heads = {id(part) for head in head_modules(model) for part in head.modules()}
    linear = [
        name for name, module in model.named_modules() if _is_linear(module) and id(module) not in heads
    ]
    for target in targets:
        if not any(_ends_with(name, target) for name in linear):
            known = list(dict.fromkeys(re.sub(r".*\.\d+\.", "", name) for name in linear))
            raise UserError(
                f"train.targets {target!r} matches no linear layer of {type(model).__name__}; its linear "
                f"layers are {', '.join(known)}"
            )
    return [name for name in linear if any(_ends_with(name, target) for target in targets)]


def _is_linear(module: nn.Module) -> bool:
    # Subclasses of a convolution may change its weight before they use it.
    pointwise = type(module) is nn.Conv2d and module.kernel_size == (1, 1) and module.groups == 1
    return pointwise or isinstance(module, nn.Linear)


def _ends_with(name: str, target: str) -> bool:
    names = (f".{name}", re.sub(r"\.[qkv]_proj$", ".qkv", f".{name}"))
    return any(known.endswith(f".{target}") for known in names)


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
