"""Pre-tunes the decoders of TOAST: each learns to reconstruct what its block was given from what it gave.

The loss is 0.1 · Σ MSE(decoder_i(out_i), in_i) over the blocks of the frozen backbone; labels play no part.
It teaches what the decoders pass on. What they emit is learned on the task, from its random start.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stochca._typing import TimmModule
from stochca.adapters.toast import TOAST, make_decoders
from stochca.compute.compilation import check_compiles, compiled_blocks
from stochca.compute.devices import default_device
from stochca.compute.precision import autocast, choose_attention_kernel, resolve_precision
from stochca.compute.randomness import Stream, derived_seed, seed_everything
from stochca.config import NoAverage
from stochca.config.training import Training
from stochca.data.batches import evaluation_batches, images_of_step, training_batches
from stochca.data.images import Images, names_of, some_of
from stochca.data.preprocessing import Preprocessing
from stochca.errors import UserError
from stochca.training.callbacks import Callback, Callbacks
from stochca.training.deciding import what_decides
from stochca.training.loop import Loop
from stochca.training.loss import Loss

WEIGHT = 0.1
MEASURED = 256  # images that the loss is measured on at the end


@dataclass(frozen=True)
class Pretuned:
    """What pre-tuning came to."""

    decoders: nn.ModuleList
    loss: float  # on the first `MEASURED` images, without augmentation
    loss_before: float  # likewise, of the random decoders
    seconds: float


class Reconstruction(nn.Module):
    """Images (B, 3, height, width) to the loss, a scalar. The backbone is out of its parameters and state."""

    def __init__(self, backbone: TimmModule) -> None:
        super().__init__()
        self.decoders = make_decoders(backbone)
        self._backbone = (backbone.requires_grad_(False).eval(),)

    def forward(self, images: Tensor) -> Tensor:
        given, gave = block_tokens(self._backbone[0], images)
        losses = [
            functional.mse_loss(decoder.get_submodule("pass_on")(after).float(), before.float())
            for decoder, before, after in zip(self.decoders, given, gave, strict=True)
        ]
        return WEIGHT * torch.stack(losses).sum()

    def get_classifier(self) -> nn.Module:
        """It has no head."""
        return nn.Identity()


@torch.no_grad()
def block_tokens(backbone: TimmModule, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Tokens (B, N, D) that each block is given, and those that it gives."""
    given: list[Tensor] = []
    gave: list[Tensor] = []

    def record(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        given.append(arguments[0])
        gave.append(output)

    with ExitStack() as hooks:
        for block in backbone.blocks:
            hooks.enter_context(block.register_forward_hook(record))
        backbone.forward_features(images)
    return given, gave


def pretune(
    backbone: TimmModule,
    images: Images,
    *,
    settings: Training,
    preprocessing: Preprocessing,
    seed: int = 0,
    work_folder: Path | str | None = None,
    callbacks: Sequence[Callback] = (),
    device: torch.device | str | None = None,
) -> Pretuned:
    """Train decoders for a frozen timm model. With a `work_folder`, an interrupted run continues from it.

    Raises:
        UserError: the architecture is not supported, the settings don't fit the device, there are no images,
            the work folder holds a checkpoint of another training, or training diverged.
    """
    TOAST.check(backbone)
    if settings.layer_decay is not None:
        raise UserError("pretune.training.layer_decay must be null: decoders have no layers that it counts")
    if not len(images):
        raise UserError("there are no images to pre-tune on")
    device = default_device() if device is None else torch.device(device)
    precision: Any = resolve_precision(settings.precision, device)
    if settings.compile:
        check_compiles(device)
    listeners = Callbacks(callbacks)
    seed_everything(derived_seed(seed, Stream.GLOBAL))
    backbone.to(device)
    choose_attention_kernel(backbone, precision, device)
    model = Reconstruction(backbone).to(device)

    first = some_of(images, range(min(MEASURED, len(images))))

    def measured() -> float:
        losses = 0.0
        for batch, _ in evaluation_batches(first, preprocessing, batch_size=64, workers=0):
            with torch.no_grad(), autocast(precision, device):
                losses += model(batch.to(device)).item() * len(batch)
        return losses / len(first)

    loss_before = measured()
    loss = _ReconstructionLoss(backbone, settings, seed)
    timetable = settings.timetable(len(images))
    loop = Loop(
        model,
        model,
        loss,
        NoAverage(),
        settings,
        timetable,
        precision=precision,
        device=device,
        listeners=listeners,
        work_folder=None if work_folder is None else Path(work_folder),
        decides=what_decides(
            backbone, dataclasses.replace(settings, precision=precision), len(images), preprocessing, seed
        ),
        names_of_step=lambda step: names_of(
            [images], images_of_step(len(images), settings, seed=seed, step=step)
        ),
    )
    start, steps = loop.progress.step, timetable.steps
    listeners.on_start(start, steps)
    batches = training_batches(images, preprocessing, settings, seed=seed, steps=steps, start=start)
    try:
        with compiled_blocks(None, backbone) if settings.compile else nullcontext():
            loop.run(batches)
        for note in loop.progress.skip_notes:
            listeners.on_note(note)
    finally:
        listeners.on_end()
    loss_after = measured()
    if loop.skipped_in_a_row or not math.isfinite(loss_after):
        raise UserError(
            "pre-tuning diverged in its last steps; lower lr in pretune.training of params.yaml, or set "
            "clip_grad there"
        )
    return Pretuned(model.decoders, loss_after, loss_before, time.perf_counter() - loop.started)


class _ReconstructionLoss(Loss):
    """The model's own."""

    def __call__(
        self, model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, step: int
    ) -> Tensor:
        return model(images)
