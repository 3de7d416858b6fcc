"""VPT and TOAST for any family, written out slowly; attention by its definition (`slow_attention.py`)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from stochca._typing import TimmModule
from tests.stochca.timm_models.families.slow_attention import (
    attend,
    attention_layers,
    query_key_value,
    replaced,
    tokens_of,
)


def slow_vpt(backbone: TimmModule, prompts: Tensor, images: Tensor) -> Tensor:
    """Logits (B, classes). `prompts` (blocks or 1, P, D) are put behind the other tokens."""
    count = prompts.shape[1]
    deep = len(prompts) > 1
    forwards: dict[TimmModule, Callable[..., Tensor]] = {}
    for i, block in enumerate(backbone.blocks):
        enter = prompts[i] if deep or i == 0 else None
        leave = deep or i == len(backbone.blocks) - 1
        forwards[block] = partial(_prompted, block.forward, enter, count if leave else 0)
        for layer in attention_layers(block):
            forwards[layer] = partial(_attention, layer, None, count)
    with replaced(forwards):
        return backbone(images)


def _prompted(
    forward: Callable[..., Tensor], enter: Tensor | None, leave: int, x: Tensor, **arguments: Any
) -> Tensor:
    if enter is not None:
        x = torch.stack([torch.cat([tokens, enter]) for tokens in x])
    y = forward(x, **arguments)
    return y[:, : y.shape[1] - leave]


def slow_toast(model: Any, images: Tensor) -> Tensor:
    """Logits (B, classes) of a `stochca.TOAST` whose decoders are plain linear layers."""
    backbone, task = model.backbone, model.task
    seen = backbone.forward_features(images)
    cosine = (seen * task).sum(dim=-1) / (seen.norm(dim=-1) * task.norm())
    signal = (seen * cosine.clamp(0, 1).unsqueeze(-1)) @ model.transform
    forwards: dict[TimmModule, Callable[..., Tensor]] = {}
    for block, decoder in reversed([*zip(backbone.blocks, model.decoders, strict=True)]):
        signal = signal @ decoder.pass_on.weight.T
        for layer in attention_layers(block):
            forwards[layer] = partial(_attention, layer, signal @ decoder.emit.weight.T, 0)
    with replaced(forwards):
        return backbone(images)


def _attention(layer: TimmModule, told: Tensor | None, further: int, x: Tensor, **arguments: Any) -> Tensor:
    """`further` as for `attend`; to the values are added those of what the layer is `told` (B, N, D)."""
    rows = []
    for i, row in enumerate(x):
        queries, keys, values = query_key_value(layer, tokens_of(layer, row))
        if told is not None:
            _, _, more = query_key_value(layer, told[i])
            values = [value + other for value, other in zip(values, more, strict=True)]
        rows.append(attend(layer, row, queries, keys, values, further=further, **arguments))
    return torch.stack(rows)
