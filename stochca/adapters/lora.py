"""LoRA (Hu et al., ICLR 2022, arXiv 2106.09685): linear layers learn low-rank updates, in place."""

import copy
import re

from torch import nn

from stochca._typing import TimmModule
from stochca.adapters.adaptation import Adaptation, unfreeze_heads
from stochca.adapters.low_rank import check_installed, inject, merge
from stochca.errors import UserError
from stochca.timm_models.families import head_modules


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
                f"adapter.targets {target!r} matches no linear layer of {type(model).__name__}; its linear "
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
