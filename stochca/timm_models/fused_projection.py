"""Attention layers that compute queries, keys and values in one: `attn.qkv`. Shapes: see `key_value.py`."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn import functional

from stochca._typing import TimmModule
from stochca.timm_models.key_value import (
    DeepestReached,
    KeyNorm,
    KeyValue,
    Record,
    bypassed_key_norm,
    swapped,
)


class FusedProjection:
    """`attn.qkv`, with the biases `attn.q_bias` and `attn.v_bias` that some families keep beside it.

    What the methods change of the layer lasts as long as their context.
    """

    def __init__(self, attention: TimmModule) -> None:
        self.attention = attention

    def cross(self, source: KeyValue) -> AbstractContextManager[None]:
        """Attend to `source`; of the layer's own, only the queries are computed where all images do."""
        bypassed = bypassed_key_norm(self.attention)
        return self._swapped(CrossProjection(self.attention, source), **bypassed)

    def recording(self, record: Record, last: bool = False) -> AbstractContextManager[None]:
        """Append the keys, normalised, and the values of a forward pass to `record`.

        If it is the `last` that is needed, no queries are computed, and `DeepestReached` ends the pass.
        """
        return self._swapped((LastProjection if last else RecordingProjection)(self.attention, record))

    def informed(self, further_BNC: Tensor) -> AbstractContextManager[None]:
        """Add to the values what the value projection, its bias included, makes of `further_BNC`."""
        return self._swapped(InformedProjection(self.attention, further_BNC))

    def _swapped(self, qkv: nn.Module, **others: nn.Module) -> AbstractContextManager[None]:
        # Without a q_bias, timm calls qkv and adds nothing to what it gives.
        without = {"q_bias": None} if has_biases(self.attention) else {}
        return swapped(self.attention, qkv=qkv, **others, **without)


class _FusedStandIn(nn.Module):
    """Stands in for `attn.qkv`: the same numbers, but any of queries, keys and values by themselves."""

    def __init__(self, attention: TimmModule) -> None:
        super().__init__()
        self.layer: TimmModule = attention.qkv
        self.key_norm = KeyNorm(attention)
        self.biases = [attention.q_bias, attention.k_bias, attention.v_bias] if has_biases(attention) else []
        # Channels are ordered (3, heads, H), or (heads, 3, H).
        self.groups: int = attention.num_heads if getattr(attention, "head_first", False) else 1
        # Of an adapter, or a layer with hooks, the weight is not all that there is: it is called.
        self.adapted = not _is_its_weight(self.layer)
        plain = getattr(self.layer, "base_layer", self.layer)
        self.dim = 1 if isinstance(plain, nn.Conv2d) else -1  # of the channels

    def project(self, x: Tensor, parts: slice) -> list[Tensor]:
        """Some of queries (0), keys (1) and values (2) of `x`; only what is asked for is computed."""
        if self.adapted:
            return self.split(self.project_together(x))[parts]
        return self.split(self._multiply(x, parts), len(range(3)[parts]))

    def project_together(self, x: Tensor) -> Tensor:
        """Queries, keys and values of `x` together, as timm expects them."""
        if not self.adapted:
            return self._multiply(x, slice(0, 3))
        y: Tensor = self.layer(x)
        return y + torch.cat(self.biases) if self.biases else y

    def split(self, y: Tensor, number: int = 3) -> list[Tensor]:
        """Views of the queries, keys and values, or of as many of them as are in `y`."""
        dim = self.dim % y.dim()
        return [
            part.flatten(dim, dim + 1) for part in y.unflatten(dim, (self.groups, number, -1)).unbind(dim + 1)
        ]

    def join(self, parts: list[Tensor]) -> Tensor:
        """Put queries, keys and values together as timm expects them."""
        dim = self.dim % parts[0].dim()
        grouped = [part.unflatten(dim, (self.groups, 1, -1)) for part in parts]
        return torch.cat(grouped, dim=dim + 1).flatten(dim, dim + 2)

    def _multiply(self, x: Tensor, parts: slice) -> Tensor:
        weight = self._rows(self.layer.weight, parts)
        bias = torch.cat(self.biases) if self.biases else self.layer.bias
        bias = None if bias is None else self._rows(bias, parts)
        multiply = functional.conv2d if isinstance(self.layer, nn.Conv2d) else functional.linear
        return multiply(x, weight, bias)

    def _rows(self, parameter: Tensor, parts: slice) -> Tensor:
        return parameter.unflatten(0, (self.groups, 3, -1))[:, parts].flatten(0, 2)


class CrossProjection(_FusedStandIn):
    """The student's own queries, the teacher's keys and values."""

    def __init__(self, attention: TimmModule, source: KeyValue) -> None:
        super().__init__(attention)
        self.source = source

    def forward(self, x_BNC: Tensor) -> Tensor:
        source = self.source
        if source.images is None:
            (query_BND,) = self.project(x_BNC, slice(0, 1))
            key_BND, value_BND = source.key_BND, source.value_BND
        else:
            query_BND, key_BND, value_BND = self.project(x_BNC, slice(0, 3))
            key_BND = source.where_chosen(source.key_BND, self.key_norm(key_BND))
            value_BND = source.where_chosen(source.value_BND, value_BND)
        return self.join([query_BND, key_BND.to(query_BND), value_BND.to(query_BND)])


class RecordingProjection(_FusedStandIn):
    """Appends the keys and values that pass to `record`."""

    def __init__(self, attention: TimmModule, record: Record) -> None:
        super().__init__(attention)
        self.record = record

    def forward(self, x_BNC: Tensor) -> Tensor:
        together_BNE = self.project_together(x_BNC)
        _, key_BND, value_BND = self.split(together_BNE)
        self.record += [self.key_norm(key_BND), value_BND]
        return together_BNE


class LastProjection(RecordingProjection):
    """The recording projection of the deepest layer: no queries, and nothing after it runs."""

    def forward(self, x_BNC: Tensor) -> Tensor:
        key_BND, value_BND = self.project(x_BNC, slice(1, 3))
        self.record += [self.key_norm(key_BND), value_BND]
        raise DeepestReached


class InformedProjection(_FusedStandIn):
    """The values of the tokens and, added to them, of what they are told."""

    def __init__(self, attention: TimmModule, further_BNC: Tensor) -> None:
        super().__init__(attention)
        self.further_BNC = further_BNC

    def forward(self, x_BNC: Tensor) -> Tensor:
        query_BND, key_BND, value_BND = self.project(x_BNC, slice(0, 3))
        (further_BND,) = self.project(self.further_BNC, slice(2, 3))
        return self.join([query_BND, key_BND, value_BND + further_BND])


def _is_its_weight(layer: nn.Module) -> bool:
    """Whether a layer does what its class does with its weight and bias, and nothing besides."""
    hooks = (
        layer._forward_hooks,
        layer._forward_pre_hooks,
        layer._backward_hooks,
        layer._backward_pre_hooks,
    )
    return type(layer) in (nn.Linear, nn.Conv2d) and not any(hooks) and "forward" not in vars(layer)


def call_what_is_adapted(attention: TimmModule) -> None:
    """Let an attention layer call its `qkv`, where an adapter that was put there is more than its weight.

    With biases beside it, timm would use the weight alone.
    """
    if has_biases(attention) and not _is_its_weight(attention.qkv):
        attention.qkv_bias_separate = True


def has_biases(attention: TimmModule) -> bool:
    """Whether an attention layer keeps the biases of its `qkv` beside it."""
    return attention._parameters.get("q_bias") is not None
