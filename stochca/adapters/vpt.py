"""Visual prompt tuning (Jia et al., ECCV 2022, arXiv 2203.12119).

Learned tokens attend and are attended to like patches, in a frozen transformer. Shallow: they enter before
the first block. Deep: what a block made of them is replaced by new ones before the next. They have no
position, and attention knows no order but positions: prompts stand in front of the other tokens.

Shapes: B images, N tokens, P prompts, D channels.
"""

import math
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.adapters.adapted import AdaptedModel, Around
from stochca.errors import UserError
from stochca.timm_models.families import positions_of
from stochca.timm_models.key_value import swapped
from stochca.timm_models.projections import BoundBlock, attention_layers


class VPT(AdaptedModel):
    """Wrap a pretrained transformer so that prompts and its head learn, and nothing else.

    Args:
        model: a timm transformer with its new head; it is frozen, its head excepted.
        tokens: how many prompts.
        deep: whether every block has its own.
        dropout: of the prompts, while training.

    Raises:
        UserError: the architecture is not supported, or there are no prompts.

    >>> model = VPT(timm.create_model("vit_base_patch16_224", pretrained=True, num_classes=200), tokens=5)
    >>> loss = criterion(model(images), labels)
    """

    title = "VPT"

    def __init__(
        self, model: TimmModule, tokens: int = 5, deep: bool = True, *, dropout: float = 0.0
    ) -> None:
        super().__init__(model)
        self.positions = positions_of(model, self.title)
        if tokens < 1:
            raise UserError(f"tokens must be 1 or more, found {tokens}")
        height, width = model.patch_embed.patch_size
        limit = math.sqrt(6 / (3 * height * width + model.embed_dim))
        prompts = torch.empty(len(model.blocks) if deep else 1, tokens, model.embed_dim)
        self.prompts = nn.Parameter(nn.init.uniform_(prompts, -limit, limit))  # (blocks or 1, P, D)
        self.deep = deep
        self.options = {"tokens": tokens, "deep": deep}
        self.dropout = nn.Dropout(dropout)

    def adapted_features(self, images: Tensor) -> Tensor:
        """Tokens (B, N, D), the prompts left out."""
        blocks = self.backbone.blocks
        prompted = [
            BoundBlock(
                partial(
                    self._prompted,
                    block,
                    self.prompts[i if self.deep else 0],
                    self.deep or i == 0,
                    self.deep or i == len(blocks) - 1,
                )
            )
            for i, block in enumerate(blocks)
        ]
        with swapped(self.backbone, blocks=nn.Sequential(*prompted)):
            return self.backbone.forward_features(images)

    def _prompted(
        self, block: nn.Module, prompts_PD: Tensor, enter: bool, leave: bool, x_BND: Tensor, **arguments: Any
    ) -> Tensor:
        """What a block gives with prompts, which may enter before it and leave after it."""
        count = len(prompts_PD)
        if enter:
            prompts_BPD = self.dropout(prompts_PD.expand(x_BND.shape[0], -1, -1)).to(x_BND)
            x_BND = torch.cat([prompts_BPD, x_BND], dim=1)
        with ExitStack() as stack:
            for attention in attention_layers(block):
                arguments = stack.enter_context(self.positions(attention, count, arguments))
            x_BND = block(x_BND, **arguments)
        return x_BND[:, count:] if leave else x_BND


class Prompted(Around):
    """The choice `adapter: vpt`."""

    model_class = VPT

    def adapt(self, student: TimmModule) -> VPT:
        config = self.config
        return VPT(student, config.tokens, config.deep, dropout=config.dropout)
