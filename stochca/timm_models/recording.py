"""What a model computes on the way: outputs of its patch embedding and blocks, and its pooled features."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.timm_models.families import blocks_of, family_of, head_modules


@dataclass
class Records:
    """Of one forward pass, in fp32: (B, T, D), or (B, height, width, D) where the model keeps the grid."""

    embedding: Tensor | None = None  # of the patches
    blocks: list[Tensor] = field(default_factory=list)  # outputs
    pooled: Tensor | None = None  # what the head sees, (B, D)


def channels_last(output: Tensor, first: bool) -> Tensor:
    """(B, ..., D) of (B, D, ...), if that is what it is."""
    return output.movedim(1, -1) if first else output


@contextmanager
def recorded(model: TimmModule) -> Iterator[Records]:
    """Records what the model computes inside of the block; a second forward pass overwrites the first."""
    records = Records()
    head = head_modules(model)[0]
    family = family_of(model)
    embedding = model.patch_embed if hasattr(model, "patch_embed") else model.stem  # of a hybrid

    def embed(_: nn.Module, __: Any, output: Tensor) -> None:
        records.embedding, records.blocks = channels_last(output, family.embeds_channels_first).float(), []

    def block(_: nn.Module, __: Any, output: Tensor) -> None:
        records.blocks.append(channels_last(output, family.channels_first).float())

    def pool(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        records.pooled = inputs[0].float()

    with ExitStack() as hooks:
        hooks.enter_context(embedding.register_forward_hook(embed))
        for module in blocks_of(model):
            hooks.enter_context(module.register_forward_hook(block))
        hooks.enter_context(head.register_forward_pre_hook(pool))
        yield records


@torch.no_grad()
def records_of(model: TimmModule, images: Tensor) -> Records:
    """Of a frozen model in evaluation mode."""
    with recorded(model) as records:
        model(images)
    return records
