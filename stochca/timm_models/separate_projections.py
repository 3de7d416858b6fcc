"""Attention layers with `attn.q_proj`, `attn.k_proj` and `attn.v_proj`. Shapes: see `key_value.py`."""

from contextlib import AbstractContextManager

from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.timm_models.key_value import (
    DeepestReached,
    KeyNorm,
    KeyValue,
    Record,
    bypassed_key_norm,
    kept_in_graph,
    swapped,
)


class SeparateProjections:
    """As `FusedProjection`, of three layers; queries may have more heads than keys and values."""

    def __init__(self, attention: TimmModule) -> None:
        self.attention = attention
        self.key = nn.Sequential(attention.k_proj, KeyNorm(attention))
        self.value: nn.Module = attention.v_proj

    def cross(self, source: KeyValue) -> AbstractContextManager[None]:
        return swapped(
            self.attention,
            k_proj=_GivenProjection(self.key, source.key_BND, source),
            v_proj=_GivenProjection(self.value, source.value_BND, source),
            **bypassed_key_norm(self.attention),
        )

    def recording(self, record: Record, last: bool = False) -> AbstractContextManager[None]:
        if last:
            return swapped(self.attention, q_proj=_LastProjections(self.key, self.value, record))
        return swapped(
            self.attention,
            k_proj=_RecordingProjection(self.key[0], self.key[1], record),
            v_proj=_RecordingProjection(self.value, nn.Identity(), record),
        )

    def informed(self, further_BNC: Tensor) -> AbstractContextManager[None]:
        return swapped(self.attention, v_proj=_InformedProjection(self.value, further_BNC))


class _GivenProjection(nn.Module):
    """Gives what the teacher's projection gave; the student's own for images that don't use it."""

    def __init__(self, own: nn.Module, given_BND: Tensor, source: KeyValue) -> None:
        super().__init__()
        self.own = own
        self.given_BND = given_BND
        self.source = source

    def forward(self, x_BNC: Tensor) -> Tensor:
        if self.source.images is None:
            return kept_in_graph(self.given_BND, self.own)
        return self.source.where_chosen(self.given_BND, self.own(x_BNC))


class _RecordingProjection(nn.Module):
    """Appends what a projection gives, normalised, to `record`; keys are projected before values."""

    def __init__(self, own: nn.Module, norm: nn.Module, record: Record) -> None:
        super().__init__()
        self.own = own
        self.norm = norm
        self.record = record

    def forward(self, x_BNC: Tensor) -> Tensor:
        y_BND: Tensor = self.own(x_BNC)
        self.record.append(self.norm(y_BND))
        return y_BND


class _InformedProjection(nn.Module):
    """The values of the tokens and, added to them, of what they are told."""

    def __init__(self, own: nn.Module, further_BNC: Tensor) -> None:
        super().__init__()
        self.own = own
        self.further_BNC = further_BNC

    def forward(self, x_BNC: Tensor) -> Tensor:
        return self.own(x_BNC) + self.own(self.further_BNC)


class _LastProjections(nn.Module):
    """Stands in for the `q_proj` of the deepest layer: computes what is needed, and nothing after it runs."""

    def __init__(self, key: nn.Module, value: nn.Module, record: Record) -> None:
        super().__init__()
        self.key = key
        self.value = value
        self.record = record

    def forward(self, x_BNC: Tensor) -> Tensor:
        self.record += [self.key(x_BNC), self.value(x_BNC)]
        raise DeepestReached
