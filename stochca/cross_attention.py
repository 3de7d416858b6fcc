"""Stochastic cross-attention (Seo, Lee and Hwang, Neural Networks 2024, arXiv 2402.16092).

While training, each block of the student, with some probability, computes its attention with its
own queries but with the keys and values of the same block of the frozen pretrained model (the
teacher). In evaluation every block attends to itself, and the model is exactly the student.
"""

import copy
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Literal

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.errors import UserError
from stochca.projections import (
    DeepestReached,
    FinalProjection,
    KeyValue,
    RecordingProjection,
    attention_layers,
    cross_attending,
    swapped,
)
from stochca.randomness import Stream, derived_seed

SUPPORTED = (
    "plain vision transformers of timm (class VisionTransformer) whose attention has a fused `attn.qkv`: "
    "vit_*, deit_*, *_clip_*, *_siglip_*, *_dinov2, *_reg4_*"
)


class StochCA(nn.Module):
    """Wrap a pretrained transformer so that training it uses stochastic cross-attention.

    Args:
        model: the student, a timm transformer with its new head. Trained in place, never renamed.
        prob: probability that a block cross-attends in a training forward; one value, or one per block.
        teacher: the frozen model that gives keys and values; None takes a copy of `model` as it is now.
        granularity: "block" draws once per block and forward, shared by the batch (the paper's);
            "sample" draws for every image by itself.
        generator: CPU generator of the draws; None makes one from torch's seed. Ranks of a data-parallel
            run that share its seed draw the same blocks.

    Raises:
        UserError: the architecture is not supported, the teacher's differs from the student's, or `prob`
            is no probability or has the wrong length.

    >>> model = StochCA(timm.create_model("vit_base_patch16_224", pretrained=True, num_classes=200), prob=0.1)
    >>> loss = criterion(model(images), labels)
    """

    def __init__(
        self,
        model: TimmModule,
        prob: float | Sequence[float] = 0.1,
        *,
        teacher: TimmModule | None = None,
        granularity: Literal["block", "sample"] = "block",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_supported(model)
        self.student: TimmModule = model
        self.num_blocks = len(model.blocks)
        self.prob = _one_per_block(prob, self.num_blocks)
        if granularity not in ("block", "sample"):
            raise UserError(f"granularity must be 'block' or 'sample', found {granularity!r}")
        self.granularity = granularity
        # A stream of its own: the draws must not follow the numbers that dropout uses.
        seed = derived_seed(torch.initial_seed() % 2**64, Stream.DRAWS)
        self.generator = generator or torch.Generator().manual_seed(seed)
        if teacher is None:
            teacher = _headless_copy(model)
        else:
            check_same_architecture(model, teacher)
        if teacher is model:
            raise UserError("the teacher is the model itself; pass a copy of it, or None to have one made")
        # In a tuple, the teacher is no submodule: state_dict(), parameters() and train() pass it by.
        self._teacher = (teacher.requires_grad_(False).eval(),)

    @property
    def teacher(self) -> TimmModule:
        """The frozen model; moved along by `.to()`, otherwise out of sight."""
        return self._teacher[0]

    def forward(self, images: Tensor, cross_blocks: Iterable[int] | None = None) -> Tensor:
        """Logits of `images` (B, 3, height, width).

        `cross_blocks` names the blocks that cross-attend, in any mode; None draws them while training
        and leaves all to self-attention in evaluation.
        """
        if cross_blocks is not None:
            drawn = self._forced(cross_blocks)
        elif self.training:
            drawn = self.draw(len(images))
        else:
            drawn = {}
        if not drawn:
            return self.student(images)
        sources = teacher_keys_values(self.teacher, images, drawn)
        blocks = [
            _CrossBlock(block, sources[i]) if i in sources else block
            for i, block in enumerate(self.student.blocks)
        ]
        with swapped(self.student, blocks=nn.Sequential(*blocks)):
            return self.student(images)

    def draw(self, batch_size: int) -> dict[int, Tensor | None]:
        """Draw the blocks that cross-attend: their images as a boolean (B,), or None for all of them."""
        columns = batch_size if self.granularity == "sample" else 1
        chosen = torch.rand(self.num_blocks, columns, generator=self.generator) < self.prob[:, None]
        return {
            i: chosen[i] if self.granularity == "sample" else None
            for i in range(self.num_blocks)
            if chosen[i].any()
        }

    def _forced(self, cross_blocks: Iterable[int]) -> dict[int, Tensor | None]:
        blocks = sorted(set(cross_blocks))
        wrong = [i for i in blocks if not 0 <= i < self.num_blocks]
        if wrong:
            raise UserError(f"cross_blocks {wrong} don't exist; the blocks are 0 to {self.num_blocks - 1}")
        return dict.fromkeys(blocks)

    def _apply(self, fn: Any, recurse: bool = True) -> "StochCA":
        # .to(), .cuda(), .half() and the like take the teacher along.
        self.teacher._apply(fn)
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        return f"prob={self.prob.tolist()}, granularity={self.granularity!r}"


class _CrossBlock(nn.Module):
    """A student's block bound to the teacher's keys and values of one forward pass.

    A fresh object per forward, so that gradient checkpointing, which runs the block again during
    the backward pass, finds the keys and values of its own forward.
    """

    def __init__(self, block: nn.Module, sources: list[KeyValue]) -> None:
        super().__init__()
        self.block = block
        self.sources = sources

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        with ExitStack() as stack:
            for attention, source in zip(attention_layers(self.block), self.sources, strict=True):
                stack.enter_context(cross_attending(attention, source))
            return self.block(*args, **kwargs)


@torch.no_grad()
def teacher_keys_values(
    teacher: TimmModule, images: Tensor, drawn: dict[int, Tensor | None]
) -> dict[int, list[KeyValue]]:
    """Keys and values of the drawn blocks, one per attention layer of the block.

    The teacher runs as far as the deepest drawn block, and there only to its keys and values.
    """
    recorded: dict[int, list[KeyValue]] = {i: [] for i in drawn}
    deepest = max(drawn)
    with ExitStack() as stack:
        for i, chosen in drawn.items():
            layers = attention_layers(teacher.blocks[i])
            chosen = None if chosen is None else chosen.to(images.device)

            def record(key: Tensor, value: Tensor, i: int = i, chosen: Tensor | None = chosen) -> None:
                recorded[i].append(KeyValue(key, value, chosen))

            for layer in layers:
                is_last = i == deepest and layer is layers[-1]
                projection = (FinalProjection if is_last else RecordingProjection)(layer, record)
                stack.enter_context(swapped(layer, qkv=projection))
        with suppress(DeepestReached):
            teacher.forward_features(images)
    return recorded


def check_supported(model: TimmModule) -> None:
    """Raise `UserError` unless every block of `model` has keys and values that can be exchanged."""
    name = type(model).__name__
    if not isinstance(model, VisionTransformer):
        raise UserError(f"StochCA does not support {name}; supported are {SUPPORTED}")
    for i, block in enumerate(model.blocks):
        if not attention_layers(block):
            raise UserError(
                f"StochCA does not support {name} with {type(block).__name__}: block {i} has no attention "
                f"with a fused `attn.qkv`; supported are {SUPPORTED}"
            )
    if not isinstance(model.patch_drop, nn.Identity):
        raise UserError(
            "StochCA does not support patch_drop_rate above 0: student and teacher would see different "
            "patches; create the model with patch_drop_rate=0"
        )


def check_same_architecture(student: TimmModule, teacher: TimmModule) -> None:
    """Raise `UserError` naming the first difference, the heads excepted."""
    check_supported(teacher)
    for i, (block, other) in enumerate(zip(student.blocks, teacher.blocks, strict=False)):
        kinds = [type(part).__name__ for part in (block, other)]
        heads = [[layer.num_heads for layer in attention_layers(part)] for part in (block, other)]
        if kinds[0] != kinds[1] or heads[0] != heads[1]:
            raise UserError(
                f"the teacher differs from the student: block {i} is {kinds[1]} with {heads[1]} heads, "
                f"in the student {kinds[0]} with {heads[0]}; use the same architecture"
            )
    teachers = {name: tuple(value.shape) for name, value in teacher.blocks.state_dict().items()}
    for name, value in student.blocks.state_dict().items():
        found = teachers.pop(name, None)
        if found != tuple(value.shape):
            raise UserError(
                f"the teacher differs from the student: blocks.{name} has the shape {tuple(value.shape)} in "
                f"the student and {found or 'does not exist'} in the teacher; use the same architecture"
            )
    if teachers:
        raise UserError(f"the teacher differs from the student: only it has blocks.{next(iter(teachers))}")
    tokens = [model.patch_embed.num_patches + model.num_prefix_tokens for model in (student, teacher)]
    if tokens[0] != tokens[1]:
        raise UserError(
            f"the teacher differs from the student: it sees {tokens[1]} tokens, the student {tokens[0]}; "
            "create both with the same img_size and prefix tokens"
        )


def _one_per_block(prob: float | Sequence[float], num_blocks: int) -> Tensor:
    try:
        values = [float(prob)] * num_blocks if isinstance(prob, int | float) else [float(p) for p in prob]
    except (TypeError, ValueError):
        raise UserError(f"prob must be one probability, or one per block, found {prob!r}") from None
    if len(values) != num_blocks:
        raise UserError(
            f"prob has {len(values)} values, but the model has {num_blocks} blocks; "
            f"give one value or {num_blocks}"
        )
    if not all(0 <= value <= 1 for value in values):
        raise UserError(f"prob must be between 0 and 1, found {prob}")
    return torch.tensor(values, dtype=torch.float64)


def _headless_copy(model: TimmModule) -> TimmModule:
    """A copy of what a teacher needs: nothing behind the keys and values of the last block."""
    last = model.blocks[-1]
    behind = {
        model: ("norm", "fc_norm", "attn_pool", "head", "head_dist"),
        last: ("ls1", "norm2", "mlp", "ls2"),
        attention_layers(last)[-1]: ("proj",),
    }
    with ExitStack() as stack:
        for module, names in behind.items():
            unused = {name: nn.Identity() for name in names if module._modules.get(name) is not None}
            stack.enter_context(swapped(module, **unused))
        return copy.deepcopy(model)
