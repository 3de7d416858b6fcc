"""StochCA written out slowly: every head and every image by itself, the whole teacher, nothing shared.

Only the parameters and the parts that StochCA does not touch (patch embedding, norms, MLP) come from
the model; attention is computed from the definition in the paper.
"""

import math

import torch
from timm.layers.diff_attention import DiffAttention
from torch import Tensor

from stochca._typing import TimmModule


def _split_heads(x: Tensor, heads: int) -> list[Tensor]:
    return list(x.split(x.shape[-1] // heads, dim=-1))


def _query_key_value(attention: TimmModule, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = (
        x @ attention.qkv.weight.T + (0 if attention.qkv.bias is None else attention.qkv.bias)
    ).chunk(3, dim=-1)
    return query, key, value


def _norm_heads(norm: TimmModule, x: Tensor, head_dim: int) -> Tensor:
    return torch.cat([norm(head) for head in x.split(head_dim, dim=-1)], dim=-1)


def _attend(attention: TimmModule, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v for one image, head by head; queries and keys are normalised already."""
    if isinstance(attention, DiffAttention):
        return _attend_differentially(attention, query, key, value)
    heads = []
    for q, k, v in zip(*(_split_heads(x, attention.num_heads) for x in (query, key, value)), strict=True):
        heads.append(torch.softmax(q @ k.T / math.sqrt(q.shape[-1]), dim=-1) @ v)
    return attention.norm(torch.cat(heads, dim=-1))


def _attend_differentially(attention: TimmModule, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Differential transformer (arXiv 2410.05258): the difference of two softmaxes per head."""
    difference = attention._compute_lambda()
    queries, keys = (_split_heads(x, 2 * attention.num_heads) for x in (query, key))
    heads = []
    for i, v in enumerate(_split_heads(value, attention.num_heads)):
        first, second = (
            torch.softmax(queries[j] @ keys[j].T / math.sqrt(queries[j].shape[-1]), dim=-1)
            for j in (2 * i, 2 * i + 1)
        )
        heads.append(attention.sub_norm((first - difference * second) @ v) * (1 - attention.lambda_init))
    return torch.cat(heads, dim=-1)


def _attention(
    student: TimmModule, x: Tensor, teacher_key: Tensor | None, teacher_value: Tensor | None
) -> Tensor:
    """Attention of one image (N, C); with the teacher's normalised keys and values where they are given."""
    query, key, value = _query_key_value(student, x)
    query = _norm_heads(student.q_norm, query, student.head_dim)
    if teacher_key is None or teacher_value is None:
        teacher_key, teacher_value = _norm_heads(student.k_norm, key, student.head_dim), value
    out = _attend(student, query, teacher_key, teacher_value)
    if getattr(student, "gate", None) is not None:
        out = out * torch.sigmoid(student.gate(x))
    return student.proj(out)


def _block(block: TimmModule, teacher_block: TimmModule, x: Tensor, teacher_x: Tensor | None) -> Tensor:
    """One block on one image; `teacher_x` is the teacher's input to its same block, if it is attended to."""
    kind = type(block).__name__
    if kind == "ParallelThingsBlock":
        x = x + sum(
            branch.ls(
                _cross(
                    branch.attn,
                    other.attn,
                    branch.norm(x),
                    None if teacher_x is None else other.norm(teacher_x),
                )
            )
            for branch, other in zip(block.attns, teacher_block.attns, strict=True)
        )
        return x + sum(branch(x) for branch in block.ffns)
    if kind == "ResPostBlock":
        x = x + block.norm1(_cross(block.attn, teacher_block.attn, x, teacher_x))
        return x + block.norm2(block.mlp(x))
    teacher_x = None if teacher_x is None else teacher_block.norm1(teacher_x)
    x = x + block.ls1(_cross(block.attn, teacher_block.attn, block.norm1(x), teacher_x))
    return x + block.ls2(block.mlp(block.norm2(x)))


def _cross(attention: TimmModule, other: TimmModule, x: Tensor, teacher_x: Tensor | None) -> Tensor:
    if teacher_x is None:
        return _attention(attention, x, None, None)
    with torch.no_grad():
        _, key, value = _query_key_value(other, teacher_x)
        key = _norm_heads(other.k_norm, key, other.head_dim)
    return _attention(attention, x, key, value)


def _embed(model: TimmModule, image: Tensor) -> Tensor:
    return model.norm_pre(model._pos_embed(model.patch_embed(image[None])))[0]


def slow_stochca(student: TimmModule, teacher: TimmModule, images: Tensor, crossed: list[set[int]]) -> Tensor:
    """Logits (B, classes); `crossed[b]` holds the blocks in which image b attends to the teacher."""
    logits = []
    for image, blocks in zip(images, crossed, strict=True):
        x = _embed(student, image)
        with torch.no_grad():
            teacher_x = _embed(teacher, image)
        for i, (block, teacher_block) in enumerate(zip(student.blocks, teacher.blocks, strict=True)):
            x = _block(block, teacher_block, x, teacher_x if i in blocks else None)
            with torch.no_grad():
                teacher_x = _block(teacher_block, teacher_block, teacher_x, None)
        logits.append(student.forward_head(student.norm(x[None]))[0])
    return torch.stack(logits)
