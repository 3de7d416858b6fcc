"""Queries, keys and values of timm's attention layers, with keys and values taken from elsewhere.

timm computes them in one fused layer `attn.qkv`, or in three, `attn.q_proj`, `attn.k_proj` and
`attn.v_proj`. Swapping those layers for a moment is all that cross-attention and top-down attention need;
the rest of timm's attention (fused kernels, rotary positions, windows, masks, gates, norms of its output)
stays as it is.
"""

from contextlib import AbstractContextManager
from typing import Protocol

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
from stochca.timm_models.key_value import KeyValue, Record
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


class Projections(Protocol):
    """How one attention layer projects. What these change of the layer lasts as long as the context."""

    def cross(self, source: KeyValue) -> AbstractContextManager[None]:
        """Attend to `source`; of the layer's own, only the queries are computed where all images do."""

    def recording(self, record: Record) -> AbstractContextManager[None]:
        """Append the keys, normalised, and the values of a forward pass to `record`."""

    def recording_last(self, record: Record) -> AbstractContextManager[None]:
        """As `recording`, but no queries are computed, and `DeepestReached` ends the forward pass."""

    def informed(self, further_BNC: Tensor) -> AbstractContextManager[None]:
        """Add to the values what the value projection, its bias included, makes of `further_BNC`."""


def projections_of(attention: TimmModule) -> Projections:
    """How `attention` projects; the classes that can do both choose for each layer."""
    fused = isinstance(attention.qkv, nn.Module)
    return FusedProjection(attention) if fused else SeparateProjections(attention)
