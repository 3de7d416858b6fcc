"""Stochastic cross-attention (Seo, Lee and Hwang, Neural Networks 2024, arXiv 2402.16092).

While training, each block of the student, with some probability, computes its attention with its
own queries but with the keys and values of the same block of the frozen pretrained model (the
teacher). In evaluation every block attends to itself, and the model is exactly the student.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from stochca._typing import TimmModule
from stochca.attention.probability import one_per_block, schedule_of, scheduled
from stochca.attention.teacher import Drawn, headless_copy, sample_of, teacher_keys_values
from stochca.compute.distributed import rank, world_size
from stochca.compute.modes import evaluating
from stochca.compute.precision import autocast, resolve_precision, store_in_half
from stochca.compute.randomness import Stream, derived_seed
from stochca.compute.sampled import are_of_one_model
from stochca.config import Schedule
from stochca.data.batches import batch_share
from stochca.errors import UserError
from stochca.timm_models.families import block_names, blocks_of
from stochca.timm_models.fused_projection import call_what_is_adapted, has_biases
from stochca.timm_models.key_value import KeyValue, swapped
from stochca.timm_models.normalisation import check_normalisation
from stochca.timm_models.projections import attention_layers, changed, projections_of
from stochca.timm_models.support import check_same_architecture, check_supported, check_uncompiled
from stochca.timm_models.threads import alone_with
from stochca.timm_models.wrapper import Wrapper


class StochCA(Wrapper):
    """Wrap a pretrained transformer so that training it uses stochastic cross-attention.

    Args:
        model: the student, a timm transformer with its new head. Trained in place, never renamed.
        prob: probability that a block cross-attends in a training forward; one value, or one per block.
        teacher: the frozen model that gives keys and values; None takes a copy of `model` as it is now.
        granularity: "block" draws once per block and forward, shared by the batch (the paper's);
            "sample" draws for every image by itself.
        blocks: those that may cross-attend, counted from 0; None: all.
        schedule: how `prob` changes while training, a `stochca.config.Schedule` or the name of one; needs
            `set_progress` before every step.
        teacher_precision: "bf16" makes the teacher cheaper than a student that trains in fp32: its
            projections are kept and computed in bf16, its keys and values handed on as the student computes.
            None or "same": whatever the surrounding autocast says. "auto": bf16 where the device of `model`
            computes in it natively.
        generator: CPU generator of the draws; None makes one from torch's seed. Ranks of a data-parallel
            run that share its seed draw the same blocks.

    Raises:
        UserError: the architecture is not supported, the teacher's differs from the student's, `prob` is
            no probability or has the wrong length, one of `blocks` does not exist, or another option is none.

    >>> model = StochCA(timm.create_model("vit_base_patch16_224", pretrained=True, num_classes=200), prob=0.1)
    >>> loss = criterion(model(images), labels)
    """

    wrapped = "student"

    def __init__(
        self,
        model: TimmModule,
        prob: float | Sequence[float] = 0.1,
        *,
        teacher: TimmModule | None = None,
        granularity: Literal["block", "sample"] = "block",
        blocks: Sequence[int] | None = None,
        schedule: Schedule | str | None = None,
        teacher_precision: Literal["auto", "same", "bf16"] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_supported(model)
        check_uncompiled(model)
        self.student: TimmModule = model
        self.block_names = block_names(model)
        self.num_blocks = len(self.block_names)
        layers = (layer for block in blocks_of(model) for layer in attention_layers(block))
        self._with_biases = [layer for layer in layers if has_biases(layer)]
        self.full_prob = one_per_block(prob, self.num_blocks, blocks)  # before the schedule
        self.schedule = schedule_of(schedule)
        self.set_progress(1, 1)
        self._is_told_progress = False
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
            check_normalisation(model, teacher)
        if not {id(each) for each in teacher.parameters()}.isdisjoint(map(id, model.parameters())):
            raise UserError(
                "the teacher is the model itself, or shares parameters with it, which would be frozen; pass "
                "a deep copy of it, or None to have one made"
            )
        # In a tuple, the teacher is no submodule: state_dict(), parameters() and train() pass it by.
        self._teacher = (teacher.requires_grad_(False).eval(),)
        self.teacher_precision = _precision(teacher_precision, next(model.parameters()).device)
        if self.teacher_precision is not None:
            store_in_half(teacher, self.teacher_precision)

    @property
    def teacher(self) -> TimmModule:
        """The frozen model; moved along by `.to()`, otherwise out of sight."""
        return self._teacher[0]

    def forward(self, images: Tensor, cross_blocks: Iterable[int] | None = None) -> Tensor:
        """Logits of `images` (B, 3, height, width).

        `cross_blocks` names the blocks that cross-attend, in any mode; None draws them while training
        and leaves all to self-attention in evaluation.
        """
        return self._run(self.student, images, cross_blocks)

    def forward_features(self, images: Tensor, cross_blocks: Iterable[int] | None = None) -> Tensor:
        """What the student's `forward_features` gives, its blocks attending as in `forward`."""
        return self._run(self.student.forward_features, images, cross_blocks)

    def _run(
        self, forward: Callable[[Tensor], Tensor], images: Tensor, cross_blocks: Iterable[int] | None
    ) -> Tensor:
        if torch.jit.is_tracing() or torch.compiler.is_exporting():
            self._refuse_to_freeze_a_draw(cross_blocks)
        if torch.compiler.is_compiling():
            if not self.training and cross_blocks is None:
                return forward(images)
            return self._run_eagerly(forward, images, cross_blocks)
        with alone_with(self.student):
            return self.attend(images, self._drawn(images, cross_blocks), forward)

    def _refuse_to_freeze_a_draw(self, cross_blocks: Iterable[int] | None) -> None:
        if self.training or cross_blocks is not None:
            raise UserError(
                "a StochCA that trains can't be traced or exported: one draw of blocks would stand for all; "
                "call eval() first, or give model.student"
            )

    @torch.compiler.disable
    def _run_eagerly(self, *arguments: Any) -> Tensor:
        warnings.warn(
            "torch.compile of a StochCA compiles its evaluation alone, because training would compile again "
            "for every draw; train it uncompiled, but within "
            "stochca.compute.compilation.compiled_blocks(model.student, model.teacher)",
            stacklevel=2,
        )
        return self._run(*arguments)

    def attend(
        self, images: Tensor, drawn: Drawn, forward: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """What the student, or another `forward` of it, gives of `images` while drawn blocks cross-attend."""
        forward = forward or self.student
        for layer in self._with_biases:
            call_what_is_adapted(layer)
        if not drawn:
            return forward(images)
        sources = self._keys_values(images, drawn)
        with ExitStack() as stack:
            for i, source in sources.items():
                parent, _, name = self.block_names[i].rpartition(".")
                blocks = self.student.get_submodule(parent)
                block = blocks.get_submodule(name)
                layers = zip(attention_layers(block), source, strict=True)
                changes = [partial(projections_of(layer).cross, given) for layer, given in layers]
                stack.enter_context(swapped(blocks, **{name: changed(block, changes)}))
            return forward(images)

    def _keys_values(self, images: Tensor, drawn: Drawn) -> dict[int, list[KeyValue]]:
        if self.teacher_precision is None:
            return teacher_keys_values(self.teacher, images, drawn)
        with autocast(self.teacher_precision, images.device):
            sources = teacher_keys_values(self.teacher, images, drawn)
        device = images.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else images.dtype
        return {i: [source.to(dtype) for source in of_block] for i, of_block in sources.items()}

    def set_progress(self, step: int, steps: int) -> None:
        """The next forward passes belong to step `step` out of `steps`, counted from 1."""
        self._is_told_progress = True
        self.prob = scheduled(self.full_prob, self.schedule, step, steps)

    def draw(
        self, batch_size: int, generator: torch.Generator | None = None, prob: Tensor | None = None
    ) -> Drawn:
        """Draw the blocks that cross-attend; `prob` (blocks,) stands in for that of the step."""
        per_image = self.granularity == "sample"
        # Every rank draws for the images of all ranks, and takes what its own are.
        columns = batch_share(range(batch_size * world_size()), rank(), world_size()) if per_image else [0]
        numbers = batch_size * world_size() if per_image else 1
        uniform = torch.rand(self.num_blocks, numbers, generator=generator or self.generator)
        chosen = uniform[:, columns] < (self.prob if prob is None else prob)[:, None]
        return {i: chosen[i] if per_image else None for i in range(self.num_blocks) if chosen[i].any()}

    def _drawn(self, images: Tensor, cross_blocks: Iterable[int] | None) -> Drawn:
        """The blocks that cross-attend in a forward pass; training counts those that it draws."""
        if cross_blocks is not None:
            return self._forced(cross_blocks)
        if not self.training:
            return {}
        if self.schedule.name != "constant" and not self._is_told_progress and self.tally.forwards == 1:
            warnings.warn(
                f"the schedule {self.schedule.name!r} stands still at its first step; call "
                "model.set_progress(step, steps) before every step, counted from 1",
                stacklevel=2,
            )
        drawn = self.draw(len(images))
        self.tally.count(drawn)
        return drawn

    def _forced(self, cross_blocks: Iterable[int]) -> Drawn:
        blocks = sorted(set(cross_blocks))
        wrong = [i for i in blocks if not 0 <= i < self.num_blocks]
        if wrong:
            raise UserError(f"cross_blocks {wrong} don't exist; the blocks are 0 to {self.num_blocks - 1}")
        return dict.fromkeys(blocks)

    def get_extra_state(self) -> Tensor:
        """A sample of the teacher, which stands in the state so that loading can tell another one."""
        return sample_of(self.teacher)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        sample = state_dict.pop(f"{prefix}_extra_state", None)  # states from before it was saved have none
        if sample is not None and not are_of_one_model(sample, self.get_extra_state()):
            raise UserError(
                "the state was saved beside another teacher than this StochCA has; wrap the model as it was "
                "wrapped then, with its pretrained weights, or pass a model with those as teacher, and load "
                f"the state after that (where another teacher is meant, leave {prefix}_extra_state out of it)"
            )
        super()._load_from_state_dict(state_dict, prefix, *others)

    def _apply(self, fn: Any, recurse: bool = True) -> "StochCA":
        # .to(), .cuda(), .half() and the like take the teacher along.
        self.teacher._apply(fn)
        return super()._apply(fn, recurse)

    def _replicate_for_data_parallel(self) -> Any:
        raise UserError(
            "nn.DataParallel can't run a StochCA on several devices: its threads would share one teacher, on "
            "the first device, and one stream of draws; use nn.parallel.DistributedDataParallel, one process "
            "per device"
        )

    def extra_repr(self) -> str:
        return f"prob={self.prob.tolist()}, granularity={self.granularity!r}"


def _precision(given: str | None, device: torch.device) -> Literal["bf16"] | None:
    if given not in ("auto", "same", "bf16", None):
        raise UserError(f"teacher_precision must be 'auto', 'same', 'bf16' or None, found {given!r}")
    wanted = resolve_precision("auto", device) if given == "auto" else given
    return "bf16" if wanted == "bf16" else None


class Tally:
    """Counts training forwards, and of each block the share of their images that cross-attended."""

    def __init__(self, num_blocks: int) -> None:
        self.forwards = 0
        self.crossed = torch.zeros(num_blocks, dtype=torch.float64)

    def count(self, drawn: Drawn) -> None:
        """One forward in which these blocks cross-attended."""
        self.forwards += 1
        for block, chosen in drawn.items():
            self.crossed[block] += 1 if chosen is None else chosen.double().mean()

    @property
    def shares(self) -> list[float]:
        """Of each block the share of the training images that cross-attended in it."""
        return (self.crossed / max(1, self.forwards)).tolist()

    def state_dict(self) -> dict[str, Any]:
        return {"forwards": self.forwards, "crossed": self.crossed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.forwards, self.crossed = state["forwards"], state["crossed"].cpu()


@torch.no_grad()
def averaged_predictions(
    model: StochCA, images: Tensor, passes: int, generator: torch.Generator | None = None
) -> Tensor:
    """Logits (B, classes): the mean over `passes` forwards, each with blocks drawn as in training.

    The schedule is for training: here blocks are drawn with the probability that it starts from or ends at.
    Dropout and stochastic depth stay off; every part's mode is put back afterwards. It takes the teacher, so
    it is for a `StochCA` at hand: a saved model is the student alone, whose one forward pass is
    `model.eval()`.

    Args:
        images: (B, 3, height, width), normalised.
        passes: how many; the cost is as many forwards, and the teacher's.
        generator: CPU generator of the draws; None takes the model's own, whose training draws then differ.

    Raises:
        UserError: there is no pass.
    """
    if passes < 1:
        raise UserError(f"passes must be 1 or more, found {passes}")
    with alone_with(model.student), evaluating(model):
        draws = (model.draw(len(images), generator, model.full_prob) for _ in range(passes))
        total = sum(model.attend(images, drawn).float() for drawn in draws)
    assert isinstance(total, Tensor)
    return total / passes
