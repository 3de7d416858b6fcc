"""Stochastic cross-attention (Seo, Lee and Hwang, Neural Networks 2024, arXiv 2402.16092).

While training, each block of the student, with some probability, computes its attention with its
own queries but with the keys and values of the same block of the frozen pretrained model (the
teacher). In evaluation every block attends to itself, and the model is exactly the student.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.attention.probability import one_per_block, scheduled
from stochca.attention.tally import Tally
from stochca.attention.teacher import headless_copy, teacher_keys_values
from stochca.compute.distributed import rank, world_size
from stochca.compute.precision import autocast, store_in_half
from stochca.compute.randomness import Stream, derived_seed
from stochca.config import Schedule
from stochca.data.batches import batch_share
from stochca.errors import UserError
from stochca.timm_models.families import block_names
from stochca.timm_models.key_value import KeyValue, swapped
from stochca.timm_models.projections import attention_layers, projections_of
from stochca.timm_models.support import check_same_architecture, check_supported


class StochCA(nn.Module):
    """Wrap a pretrained transformer so that training it uses stochastic cross-attention.

    Args:
        model: the student, a timm transformer with its new head. Trained in place, never renamed.
        prob: probability that a block cross-attends in a training forward; one value, or one per block.
        teacher: the frozen model that gives keys and values; None takes a copy of `model` as it is now.
        granularity: "block" draws once per block and forward, shared by the batch (the paper's);
            "sample" draws for every image by itself.
        blocks: those that may cross-attend, counted from 0; None: all.
        schedule: how `prob` changes while training; needs `set_progress` before every step.
        teacher_precision: "bf16" makes the teacher cheaper than a student that trains in fp32: its
            projections are kept and computed in bf16, its keys and values handed on as the student computes.
            None: whatever the surrounding autocast says.
        generator: CPU generator of the draws; None makes one from torch's seed. Ranks of a data-parallel
            run that share its seed draw the same blocks.

    Raises:
        UserError: the architecture is not supported, the teacher's differs from the student's, `prob` is
            no probability or has the wrong length, or one of `blocks` does not exist.

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
        blocks: Sequence[int] | None = None,
        schedule: Schedule | None = None,
        teacher_precision: Literal["bf16"] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_supported(model)
        self.student: TimmModule = model
        self.block_names = block_names(model)
        self.num_blocks = len(self.block_names)
        self.full_prob = one_per_block(prob, self.num_blocks, blocks)  # before the schedule
        self.schedule = schedule or Schedule()
        self.set_progress(1, 1)
        if granularity not in ("block", "sample"):
            raise UserError(f"granularity must be 'block' or 'sample', found {granularity!r}")
        self.granularity = granularity
        self.tally = Tally(self.num_blocks)
        # A stream of its own: the draws must not follow the numbers that dropout uses.
        seed = derived_seed(torch.initial_seed() % 2**64, Stream.DRAWS)
        self.generator = generator or torch.Generator().manual_seed(seed)
        if teacher is None:
            teacher = headless_copy(model)
        else:
            check_same_architecture(model, teacher)
        if teacher is model:
            raise UserError("the teacher is the model itself; pass a copy of it, or None to have one made")
        # In a tuple, the teacher is no submodule: state_dict(), parameters() and train() pass it by.
        self._teacher = (teacher.requires_grad_(False).eval(),)
        self.teacher_precision = teacher_precision
        if teacher_precision is not None:
            store_in_half(teacher, teacher_precision)

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
            self.tally.count(drawn)
        else:
            drawn = {}
        return self.attend(images, drawn)

    def attend(self, images: Tensor, drawn: dict[int, Tensor | None]) -> Tensor:
        """Logits of `images` where the blocks that `draw` gave cross-attend."""
        if not drawn:
            return self.student(images)
        sources = self._keys_values(images, drawn)
        with ExitStack() as stack:
            for i, source in sources.items():
                parent, _, name = self.block_names[i].rpartition(".")
                blocks = self.student.get_submodule(parent)
                stack.enter_context(swapped(blocks, **{name: _CrossBlock(blocks._modules[name], source)}))
            return self.student(images)

    def _keys_values(self, images: Tensor, drawn: dict[int, Tensor | None]) -> dict[int, list[KeyValue]]:
        if self.teacher_precision is None:
            return teacher_keys_values(self.teacher, images, drawn)
        with autocast(self.teacher_precision, images.device):
            sources = teacher_keys_values(self.teacher, images, drawn)
        device = images.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else images.dtype
        return {i: [source.to(dtype) for source in of_block] for i, of_block in sources.items()}

    def set_progress(self, step: int, steps: int) -> None:
        """The next forward passes belong to step `step` out of `steps`, counted from 1."""
        self.prob = scheduled(self.full_prob, self.schedule, step, steps)

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> dict[int, Tensor | None]:
        """Draw the blocks that cross-attend: their images as a boolean (B,), or None for all of them."""
        per_image = self.granularity == "sample"
        # Every rank draws for the images of all ranks, and takes what its own are.
        columns = batch_share(range(batch_size * world_size()), rank(), world_size()) if per_image else [0]
        numbers = batch_size * world_size() if per_image else 1
        uniform = torch.rand(self.num_blocks, numbers, generator=generator or self.generator)
        chosen = uniform[:, columns] < self.prob[:, None]
        return {i: chosen[i] if per_image else None for i in range(self.num_blocks) if chosen[i].any()}

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
                stack.enter_context(projections_of(attention).cross(source))
            return self.block(*args, **kwargs)
