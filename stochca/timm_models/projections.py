"""Queries, keys and values of timm's attention layers, with keys and values taken from elsewhere.

timm computes them in one fused layer `attn.qkv`, or in three, `attn.q_proj`, `attn.k_proj` and
`attn.v_proj`. Swapping those layers for a moment is all that cross-attention and top-down attention need;
the rest of timm's attention (fused kernels, rotary positions, windows, masks, gates, norms of its output)
stays as it is.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from timm.layers.attention import Attention, AttentionRope
from timm.layers.diff_attention import DiffAttention
from timm.models import (
    beit,
    eva,
    maxxvit,
    swin_transformer,
    swin_transformer_v2,
    swin_transformer_v2_cr,
    vision_transformer_relpos,
    vision_transformer_sam,
)
from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.timm_models.fused_projection import FusedProjection
from stochca.timm_models.separate_projections import SeparateProjections

# Layers that project as described above, and whose keys and values meet only queries after that.
ATTENTION_CLASSES = (
    Attention,
    AttentionRope,
    DiffAttention,
    beit.Attention,
    eva.EvaAttention,
    maxxvit.Attention2d,
    maxxvit.AttentionCl,
    swin_transformer.WindowAttention,
    swin_transformer_v2.WindowAttention,
    swin_transformer_v2_cr.WindowMultiHeadAttention,
    vision_transformer_relpos.RelPosAttention,
    vision_transformer_sam.Attention,
)


def attention_layers(block: nn.Module) -> list[TimmModule]:
    """The attention layers of a block whose keys and values can be exchanged; mostly one."""
    return [module for module in block.modules() if type(module) in ATTENTION_CLASSES]


def projections_of(attention: TimmModule) -> FusedProjection | SeparateProjections:
    """How `attention` projects; the classes that can do both choose for each layer."""
    fused = isinstance(attention.qkv, nn.Module)
    return FusedProjection(attention) if fused else SeparateProjections(attention)


class BoundBlock(nn.Module):
    """Stands in for a block in one forward pass: `forward` of it, bound to what this pass is given.

    A fresh object per pass, so that gradient checkpointing, which runs the block again during the backward
    pass, finds what its own forward was given.
    """

    def __init__(self, forward: Callable[..., Tensor]) -> None:
        super().__init__()
        self.bound = forward

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.bound(*args, **kwargs)


def changed(block: nn.Module, changes: Sequence[Callable[[], AbstractContextManager[None]]]) -> BoundBlock:
    """`block`, whose attention layers project in another way, by one context for each."""

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        with ExitStack() as stack:
            for change in changes:
                stack.enter_context(change())
            return block(*args, **kwargs)

    return BoundBlock(forward)
