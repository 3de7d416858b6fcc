"""Keys and values on their way from the teacher to the student, and what both ends need.

Shapes: B images, or B images x their windows where attention is local; N tokens, C channels;
D = heads x H channels. A projection maps (B, N, C) to (B, N, D), a fused one to (B, N, 3D). Some
families keep the channels in front: (B, C, height, width).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from stochca._typing import TimmModule

Record = list[Tensor]  # gets the keys, then the values of one layer's forward pass


@dataclass(frozen=True)
class KeyValue:
    """What one attention layer of the teacher hands to the student's, as its projections give them.

    Keys are already normalised, by the teacher's norm, but not yet rotated to their positions.
    `images` is a boolean (images,) that says which images use them; None means all.
    """

    key_BND: Tensor
    value_BND: Tensor
    images: Tensor | None = None

    def to(self, dtype: torch.dtype) -> "KeyValue":
        return replace(self, key_BND=self.key_BND.to(dtype), value_BND=self.value_BND.to(dtype))

    def where_chosen(self, given_BND: Tensor, own_BND: Tensor) -> Tensor:
        """`given_BND` for the images that use it, `own_BND` for the others."""
        if self.images is None:
            return given_BND
        # The windows of an image are neighbours.
        chosen_B = self.images.repeat_interleave(len(own_BND) // len(self.images))
        return torch.where(chosen_B.reshape(-1, *(1,) * (own_BND.dim() - 1)), given_BND, own_BND)


class DeepestReached(Exception):
    """Ends the teacher's forward pass once the last keys and values that are needed are known."""


class KeyNorm(nn.Module):
    """The key norm of an attention layer, which acts on each head's channels by themselves."""

    def __init__(self, attention: TimmModule) -> None:
        super().__init__()
        self.norm: nn.Module = getattr(attention, "k_norm", nn.Identity())
        self.head_dim: int = getattr(attention, "head_dim", 1)  # where there is a norm, there is a head_dim

    def forward(self, key_BND: Tensor) -> Tensor:
        if isinstance(self.norm, nn.Identity):
            return key_BND
        return self.norm(key_BND.unflatten(-1, (-1, self.head_dim))).flatten(-2)


class BypassedNorm(nn.Module):
    """Lets its input through; the norm's parameters stay in the graph."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return kept_in_graph(x, self.norm)


def kept_in_graph(x: Tensor, unused: nn.Module) -> Tensor:
    """`x`, from which the parameters of `unused` get the gradient 0.

    Without a gradient they would be skipped by the optimiser on some steps only, and data-parallel
    training would wait for them.
    """
    for parameter in unused.parameters():
        if parameter.requires_grad:
            x = x + 0.0 * parameter.sum().to(x.dtype)
    return x


def bypassed_key_norm(attention: TimmModule) -> dict[str, nn.Module]:
    """The keys of `attention` come normalised by the teacher's norm: its own must not act on them."""
    return {"k_norm": BypassedNorm(attention.k_norm)} if "k_norm" in attention._modules else {}


@contextmanager
def swapped(module: nn.Module, **parts: nn.Module | None) -> Iterator[None]:
    """Put others in the place of some of `module`'s submodules and parameters, for the duration."""
    registries: dict[str, dict[str, Any]] = {
        name: module._modules if name in module._modules else module._parameters for name in parts
    }
    originals = {name: registry[name] for name, registry in registries.items()}
    for name, part in parts.items():
        registries[name][name] = part
    try:
        yield
    finally:
        for name, original in originals.items():
            registries[name][name] = original
