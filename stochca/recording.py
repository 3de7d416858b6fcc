"""What a model computes on the way: outputs of its patch embedding and blocks, and its pooled features."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.families import blocks_of


@dataclass
class Records:
    """Of one forward pass, in fp32."""

    embedding: Tensor | None = None  # patches: (B, T, D), as the model has them
    blocks: list[Tensor] = field(default_factory=list)  # outputs (B, T, D), in their family's own layout
    pooled: Tensor | None = None  # what the head sees, (B, D)


@contextmanager
def recorded(model: TimmModule) -> Iterator[Records]:
    """Records what the model computes inside of the block; a second forward pass overwrites the first."""
    records = Records()
    head = model.get_classifier()
    head = head[0] if isinstance(head, tuple) else head
    embeddings = [model.patch_embed] if hasattr(model, "patch_embed") else []  # a hybrid has a stem instead

    def embed(_: nn.Module, __: Any, output: Tensor) -> None:
        records.embedding, records.blocks = output.float(), []

    def block(_: nn.Module, __: Any, output: Tensor) -> None:
        records.blocks.append(output.float())

    def pool(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        records.pooled = inputs[0].float()

    hooks = [
        *(module.register_forward_hook(embed) for module in embeddings),
        *(module.register_forward_hook(block) for module in blocks_of(model)),
        head.register_forward_pre_hook(pool),
    ]
    try:
        yield records
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def records_of(model: TimmModule, images: Tensor) -> Records:
    """Of a frozen model in evaluation mode."""
    with recorded(model) as records:
        model(images)
    return records
