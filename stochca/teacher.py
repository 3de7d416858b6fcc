"""The frozen pretrained model: what of it is kept, and how its keys and values are taken."""

import copy
from contextlib import ExitStack, suppress

import torch
from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.families import block_names
from stochca.key_value import DeepestReached, KeyValue, swapped
from stochca.projections import attention_layers, projections_of


def headless_copy(model: TimmModule) -> TimmModule:
    """A copy of what a teacher needs: nothing behind the keys and values of the last block."""
    last = model.get_submodule(block_names(model)[-1])
    attention = attention_layers(last)[-1]
    around = next(part for part in last.modules() if attention in part.children())
    behind = {
        model: ("norm", "fc_norm", "attn_pool", "neck", "head", "head_dist"),
        around: ("ls1", "norm2", "mlp", "ls2"),
        attention: ("proj",),
    }
    with ExitStack() as stack:
        for module, names in behind.items():
            unused = {name: nn.Identity() for name in names if module._modules.get(name) is not None}
            stack.enter_context(swapped(module, **unused))
        return copy.deepcopy(model)


@torch.no_grad()
def teacher_keys_values(
    teacher: TimmModule, images: Tensor, drawn: dict[int, Tensor | None]
) -> dict[int, list[KeyValue]]:
    """Keys and values of the drawn blocks, one per attention layer of the block.

    The teacher runs as far as the deepest drawn block, and there only to its keys and values.
    """
    recorded: dict[int, list[KeyValue]] = {i: [] for i in drawn}
    names = block_names(teacher)
    deepest = max(drawn)
    with ExitStack() as stack:
        for i, chosen in drawn.items():
            layers = attention_layers(teacher.get_submodule(names[i]))
            chosen = None if chosen is None else chosen.to(images.device)

            def record(key: Tensor, value: Tensor, i: int = i, chosen: Tensor | None = chosen) -> None:
                recorded[i].append(KeyValue(key, value, chosen))

            for layer in layers:
                projections = projections_of(layer)
                is_last = i == deepest and layer is layers[-1]
                stack.enter_context(
                    (projections.recording_last if is_last else projections.recording)(record)
                )
        with suppress(DeepestReached):
            teacher.forward_features(images)
    return recorded
