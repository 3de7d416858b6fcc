"""The fused query-key-value projection, with its keys and values taken from elsewhere.

timm's plain transformers compute queries, keys and values in one linear layer, `attn.qkv`. Swapping
that layer for a moment is all that cross-attention needs; the rest of timm's attention (fused
kernels, gates, dropout, norms of its output) stays as it is.

Shapes: B images, N tokens, D = heads x H channels; `qkv` maps (B, N, C) to (B, N, 3D).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from timm.layers.attention import Attention
from timm.layers.diff_attention import DiffAttention
from torch import Tensor, nn
from torch.nn import functional

from stochca._typing import TimmModule

ATTENTION_CLASSES = (Attention, DiffAttention)


@dataclass(frozen=True)
class KeyValue:
    """What one attention layer of the teacher hands to the student's: keys, already normalised, and values.

    `images` is a boolean (B,) that says which images use them; None means all.
    """

    key_BND: Tensor
    value_BND: Tensor
    images: Tensor | None = None


@contextmanager
def swapped(module: nn.Module, **submodules: nn.Module) -> Iterator[None]:
    """Put other modules in the place of some of `module`'s submodules, for the duration."""
    originals = {name: module._modules[name] for name in submodules}
    module._modules.update(submodules)
    try:
        yield
    finally:
        module._modules.update(originals)


class CrossProjection(nn.Module):
    """Stands in for `attn.qkv`: the student's own queries, the teacher's keys and values."""

    def __init__(self, attention: TimmModule, source: KeyValue) -> None:
        super().__init__()
        self.qkv: nn.Linear = attention.qkv
        self.key_norm = KeyNorm(attention)
        self.source = source

    def forward(self, x_BNC: Tensor) -> Tensor:
        source = self.source
        if source.images is None:
            query_BND = project(self.qkv, x_BNC, slice(0, self.qkv.out_features // 3))
            key_BND, value_BND = source.key_BND, source.value_BND
        else:
            query_BND, key_BND, value_BND = self.qkv(x_BNC).chunk(3, dim=-1)
            chosen_B11 = source.images[:, None, None]
            key_BND = torch.where(chosen_B11, source.key_BND, self.key_norm(key_BND))
            value_BND = torch.where(chosen_B11, source.value_BND, value_BND)
        return torch.cat([query_BND, key_BND.to(query_BND), value_BND.to(query_BND)], dim=-1)


@contextmanager
def cross_attending(attention: TimmModule, source: KeyValue) -> Iterator[None]:
    """Let `attention` attend to `source` for the duration.

    Its own key norm is bypassed: the teacher's keys come normalised by the teacher's norm.
    """
    with swapped(attention, qkv=CrossProjection(attention, source), k_norm=BypassedNorm(attention.k_norm)):
        yield


class BypassedNorm(nn.Module):
    """Lets its input through; the norm's parameters stay in the graph with gradient 0.

    Without a gradient they would be skipped by the optimiser on some steps only, and data-parallel
    training would wait for them.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        for parameter in self.norm.parameters():
            x = x + 0.0 * parameter.sum().to(x.dtype)
        return x


class RecordingProjection(nn.Module):
    """Stands in for the teacher's `attn.qkv`: hands the keys and values that pass to `record`."""

    def __init__(self, attention: TimmModule, record: Callable[[Tensor, Tensor], None]) -> None:
        super().__init__()
        self.qkv: nn.Linear = attention.qkv
        self.key_norm = KeyNorm(attention)
        self.record = record

    def forward(self, x_BNC: Tensor) -> Tensor:
        query_key_value = self.qkv(x_BNC)
        _, key_BND, value_BND = query_key_value.chunk(3, dim=-1)
        self.record(self.key_norm(key_BND), value_BND)
        return query_key_value


class DeepestReached(Exception):
    """Ends the teacher's forward pass once the last keys and values that are needed are known."""


class FinalProjection(RecordingProjection):
    """The recording projection of the deepest block: no queries, and nothing after it runs."""

    def forward(self, x_BNC: Tensor) -> Tensor:
        third = self.qkv.out_features // 3
        key_BND, value_BND = project(self.qkv, x_BNC, slice(third, 3 * third)).chunk(2, dim=-1)
        self.record(self.key_norm(key_BND), value_BND)
        raise DeepestReached


class KeyNorm(nn.Module):
    """The key norm of an attention layer, which acts on each head's channels by themselves."""

    def __init__(self, attention: TimmModule) -> None:
        super().__init__()
        self.norm: nn.Module = attention.k_norm
        self.head_dim: int = attention.head_dim

    def forward(self, key_BND: Tensor) -> Tensor:
        if isinstance(self.norm, nn.Identity):
            return key_BND
        return self.norm(key_BND.unflatten(-1, (-1, self.head_dim))).flatten(-2)


def project(linear: nn.Linear, x: Tensor, rows: slice) -> Tensor:
    """Some of the output channels of a linear layer."""
    if not isinstance(linear, nn.Linear):  # LoRA around one
        return linear(x)[..., rows]
    return functional.linear(x, linear.weight[rows], None if linear.bias is None else linear.bias[rows])


def attention_layers(block: nn.Module) -> list[TimmModule]:
    """The attention layers of a block whose keys and values can be exchanged; mostly one."""
    return [
        module
        for module in block.modules()
        if type(module) in ATTENTION_CLASSES
        # With LoRA, the linear layer is the base of another.
        and isinstance(getattr(module.qkv, "base_layer", module.qkv), nn.Linear)
    ]
