"""The frozen pretrained model: what of it is kept, and how its keys and values are taken."""

import copy
from contextlib import ExitStack, suppress

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.compute.compilation import uncompiled
from stochca.compute.sampled import numbers_of
from stochca.timm_models.families import block_names
from stochca.timm_models.key_value import DeepestReached, KeyValue, Record, swapped
from stochca.timm_models.projections import attention_layers, projections_of
from stochca.timm_models.threads import alone_with

BEHIND = ("norm", "fc_norm", "attn_pool", "neck", "head", "head_dist")  # the last block

Drawn = dict[int, Tensor | None]  # blocks that cross-attend: their images as a boolean (B,), or None for all


def headless_copy(model: TimmModule) -> TimmModule:
    """A copy of what a teacher needs: nothing behind the keys and values of the last block."""
    with ExitStack() as stack:
        for module, parts in _unused(model).items():
            stack.enter_context(swapped(module, **{name: nn.Identity() for name in parts}))
        teacher = copy.deepcopy(model)
    for parent in [*teacher.modules()]:
        parent._forward_hooks.clear()  # which watch the student
        for name, module in parent.named_children():
            if isinstance(module, DropPath):  # whose rate, unused, would tell compiled blocks apart
                setattr(parent, name, nn.Identity())
    return teacher


def _unused(model: TimmModule) -> dict[nn.Module, dict[str, nn.Module]]:
    """What stands behind the keys and values of the last block: the modules, and their parts by name."""
    last = model.get_submodule(block_names(model)[-1])
    attention = attention_layers(last)[-1]
    around = next(part for part in last.modules() if attention in part.children())
    behind = {
        model: BEHIND,
        around: ("ls1", "norm2", "mlp", "ls2"),
        attention: ("proj",),
    }
    return {
        module: {name: part for name, part in module.named_children() if name in names}
        for module, names in behind.items()
    }


@torch.no_grad()
def sample_of(teacher: TimmModule) -> Tensor:
    """A few numbers, in fp32 on the CPU, that tell a teacher from others; none where it has no weights yet.

    They are the same of a whole model and of its headless copy, whatever LoRA is about to add to it.
    """
    parts = [part for parts in _unused(teacher).values() for part in parts.values()]
    unused = {id(parameter) for part in parts for parameter in part.parameters()}
    parameters = [
        parameter
        for name, parameter in teacher.named_parameters()
        if id(parameter) not in unused and ".lora_" not in name
    ]
    return numbers_of(parameters)


@torch.no_grad()
def teacher_keys_values(teacher: TimmModule, images: Tensor, drawn: Drawn) -> dict[int, list[KeyValue]]:
    """Keys and values of the drawn blocks, one per attention layer of the block.

    The teacher runs as far as the deepest drawn block, and there only to its keys and values.
    """
    if teacher.training:  # whoever keeps it too may have set the mode of all that they have
        teacher.eval()
    records: dict[int, list[Record]] = {}
    names = block_names(teacher)
    deepest = max(drawn)
    with ExitStack() as stack:
        stack.enter_context(alone_with(teacher))  # which several students may share
        stack.enter_context(uncompiled(teacher.get_submodule(names[deepest])))
        for i in drawn:
            layers = attention_layers(teacher.get_submodule(names[i]))
            records[i] = [[] for _ in layers]
            for layer, record in zip(layers, records[i], strict=True):
                is_last = i == deepest and layer is layers[-1]
                stack.enter_context(projections_of(layer).recording(record, is_last))
        with suppress(DeepestReached):
            teacher.forward_features(images)
    chosen = {i: None if images_ is None else images_.to(images.device) for i, images_ in drawn.items()}
    return {
        i: [KeyValue(key, value, chosen[i]) for key, value in of_block] for i, of_block in records.items()
    }
