"""Attention and StochCA for any family, written out slowly and without swapping a projection.

The teacher runs as it is, to the end, and what enters its attention layers is written down. In the
student every attention layer is replaced by its definition, one image (or window) and head at a time, with
keys and values either from the layer itself or from the teacher's input and parameters. What StochCA does
not touch (patch embedding, norms, windows, tables of positions, MLP) comes from the model.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer_sam import get_decomposed_rel_pos_bias
from torch import Tensor, nn
from torch.nn import functional

from stochca._typing import TimmModule
from tests.stochca.timm_models.families.cases import Case

Heads = list[Tensor]  # one (N, H) per head


def slow_stochca(
    case: Case, student: TimmModule, teacher: TimmModule, images: Tensor, crossed: Sequence[set[int]]
) -> Tensor:
    """Logits (B, classes); `crossed[b]` holds the blocks in which image b attends to the teacher."""
    inputs: dict[nn.Module, Tensor] = {}
    layers = [attention_layers(block) for block in case.blocks(teacher)]
    hooks = [
        layer.register_forward_pre_hook(lambda layer, x: inputs.update({layer: x[0]}))
        for block in layers
        for layer in block
    ]
    with torch.no_grad():
        teacher(images)
    for hook in hooks:
        hook.remove()
    with _replaced(case, student, layers, inputs, crossed):
        return student(images)


def attention_layers(block: nn.Module) -> list[TimmModule]:
    return [part for part in block.modules() if hasattr(part, "num_heads") and hasattr(part, "proj")]


@contextmanager
def _replaced(
    case: Case,
    student: TimmModule,
    teachers: list[list[TimmModule]],
    inputs: dict[nn.Module, Tensor],
    crossed: Sequence[set[int]],
) -> Iterator[None]:
    forwards: dict[TimmModule, Callable[..., Tensor]] = {}
    for i, (block, others) in enumerate(zip(case.blocks(student), teachers, strict=True)):
        chosen = [i in blocks for blocks in crossed]
        for layer, other in zip(attention_layers(block), others, strict=True):
            forwards[layer] = partial(_cross_attention, layer, other, inputs[other], chosen)
    with replaced(forwards):
        yield


@contextmanager
def replaced(forwards: dict[TimmModule, Callable[..., Tensor]]) -> Iterator[None]:
    """Put other functions in the place of modules' `forward`."""
    for module, forward in forwards.items():
        module.forward = forward
    try:
        yield
    finally:
        for module in forwards:
            del module.forward


def _cross_attention(
    layer: TimmModule,
    other: TimmModule,
    other_x: Tensor,
    chosen: list[bool],
    x: Tensor,
    *,
    mask: Tensor | None = None,
    **arguments: Any,
) -> Tensor:
    windows = len(x) // len(chosen)
    rows = []
    for row in range(len(x)):
        queries, keys, values = query_key_value(layer, tokens_of(layer, x[row]))
        if chosen[row // windows]:
            with torch.no_grad():
                _, keys, values = query_key_value(other, tokens_of(other, other_x[row]))
        row_mask = None if mask is None else mask[row % len(mask)]
        rows.append(attend(layer, x[row], queries, keys, values, mask=row_mask, **arguments))
    return torch.stack(rows)


def attend(
    layer: TimmModule,
    x: Tensor,
    queries: Heads,
    keys: Heads,
    values: Heads,
    *,
    rope: Tensor | None = None,
    mask: Tensor | None = None,
    shared_rel_pos: Tensor | None = None,
    shared_rel_pos_bias: Tensor | None = None,
    attn_mask: None = None,
    is_causal: bool = False,
    further: int = 0,
) -> Tensor:
    """Of one image or window; the last `further` tokens have no position."""
    assert (attn_mask, is_causal) == (None, False)
    placed = len(queries[0]) - further
    if rope is None and getattr(layer, "rope", None) is not None:
        rope = layer.rope.get_embed()
    if rope is not None:
        queries, keys = (
            [
                torch.cat([turned, head[placed:]])
                for turned, head in zip(
                    _rotated(layer, [head[:placed] for head in heads], rope), heads, strict=True
                )
            ]
            for heads in (queries, keys)
        )
    share = len(queries) // len(keys)  # heads of queries that look at the same keys
    outputs = []
    for head, query in enumerate(queries):
        logits = _logits(layer, head, query, keys[head // share])
        for bias in (_bias(layer, x, query), shared_rel_pos, shared_rel_pos_bias):
            if bias is not None:
                biases = bias.reshape(-1, placed, placed)
                added = torch.zeros_like(logits)
                added[:placed, :placed] = biases[head if len(biases) > 1 else 0]
                logits = logits + added
        if mask is not None:
            logits = logits + mask
        outputs.append(torch.softmax(logits, dim=-1) @ values[head // share])
    y = torch.cat(outputs, dim=-1)
    if isinstance(getattr(layer, "norm", None), nn.Module):
        y = layer.norm(y)
    if getattr(layer, "gate", None) is not None:
        y = y * torch.sigmoid(layer.gate(tokens_of(layer, x)))
    weight = layer.proj.weight.flatten(1)
    return _as_before(layer, y @ weight.T + layer.proj.bias, x)


def tokens_of(layer: TimmModule, x: Tensor) -> Tensor:
    """(N, C), whatever the layout."""
    return x.flatten(1).T if isinstance(layer.proj, nn.Conv2d) else x.reshape(-1, x.shape[-1])


def _as_before(layer: TimmModule, y: Tensor, x: Tensor) -> Tensor:
    return (
        y.T.reshape(-1, *x.shape[1:]) if isinstance(layer.proj, nn.Conv2d) else y.reshape(*x.shape[:-1], -1)
    )


def query_key_value(layer: TimmModule, tokens: Tensor) -> tuple[Heads, Heads, Heads]:
    heads = layer.num_heads
    if layer.qkv is None:
        parts = [projection(tokens) for projection in (layer.q_proj, layer.k_proj, layer.v_proj)]
        dim = parts[0].shape[-1] // heads
        query, key, value = ([*part.split(dim, dim=-1)] for part in parts)
    else:
        y = tokens @ layer.qkv.weight.flatten(1).T
        if getattr(layer, "q_bias", None) is not None:
            y = y + torch.cat([layer.q_bias, torch.zeros_like(layer.q_bias), layer.v_bias])
        elif layer.qkv.bias is not None:
            y = y + layer.qkv.bias
        if getattr(layer, "head_first", False):
            triples = [part.chunk(3, dim=-1) for part in y.chunk(heads, dim=-1)]
            query, key, value = ([triple[i] for triple in triples] for i in range(3))
        else:
            query, key, value = ([*part.chunk(heads, dim=-1)] for part in y.chunk(3, dim=-1))
    if hasattr(layer, "k_norm"):
        query, key = [layer.q_norm(q) for q in query], [layer.k_norm(k) for k in key]
    return query, key, value


def _rotated(layer: TimmModule, heads: Heads, rope: Tensor) -> Heads:
    """Pairs of channels turned by an angle that depends on the token; class and register tokens stay."""
    turned = []
    for head, x in enumerate(heads):
        sine, cosine = (rope[head] if rope.dim() == 3 else rope).chunk(2, dim=-1)
        prefix = len(x) - len(sine)
        y = x.clone()
        half = x.shape[-1] // 2
        for pair in range(half):
            halves = getattr(layer, "rotate_half", False)
            a, b = (pair, pair + half) if halves else (2 * pair, 2 * pair + 1)
            y[prefix:, a] = x[prefix:, a] * cosine[:, a] - x[prefix:, b] * sine[:, a]
            y[prefix:, b] = x[prefix:, b] * cosine[:, b] + x[prefix:, a] * sine[:, b]
        turned.append(y)
    return turned


def _logits(layer: TimmModule, head: int, query: Tensor, key: Tensor) -> Tensor:
    if hasattr(layer, "logit_scale"):  # cosine attention of Swin V2
        scale = layer.logit_scale[head].clamp(max=math.log(100)).exp()
        return functional.normalize(query, dim=-1) @ functional.normalize(key, dim=-1).T * scale
    return query @ key.T / math.sqrt(query.shape[-1])


def _bias(layer: TimmModule, x: Tensor, query: Tensor) -> Tensor | None:
    """What the layer's own positions add to the logits: (heads, N, N), or (N, N) of this head alone."""
    if getattr(layer, "relative_position_bias_table", None) is not None:  # BEiT, Swin
        return layer._get_rel_pos_bias()
    if hasattr(layer, "cpb_mlp"):  # Swin V2
        table = 16 * torch.sigmoid(layer.cpb_mlp(layer.relative_coords_table)).reshape(-1, layer.num_heads)
        return table[layer.relative_position_index].permute(2, 0, 1)
    if hasattr(layer, "meta_mlp"):  # Swin V2 by Christoph Reich
        return layer._relative_positional_encodings()
    if getattr(layer, "rel_pos", None) is not None:  # MaxViT, relative-position ViT
        return layer.rel_pos.get_bias()
    if getattr(layer, "use_rel_pos", False):  # SAM
        size = (x.shape[0], x.shape[1])
        return get_decomposed_rel_pos_bias(query[None], layer.rel_pos_h, layer.rel_pos_w, size, size)[0]
    return None
