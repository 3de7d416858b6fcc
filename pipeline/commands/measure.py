"""How fast this machine trains an architecture: a few real steps with random weights, in seconds."""

import io
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from pipeline.commands.cost import Speed, cost_lines
from pipeline.config.params import Params
from pipeline.images.sizes import Sides
from stochca.backbones.loading import create_backbone, patch_size
from stochca.compute.cores import cores_of_process
from stochca.compute.devices import default_device, device_name
from stochca.compute.precision import autocast, choose_attention_kernel, resolve_precision
from stochca.data.batches import loader_processes
from stochca.data.preprocessing import Preprocessing
from stochca.errors import UserError
from stochca.timm_models.families import block_names
from stochca.training.optimisation import create_optimizer

CLASSES = 100  # of the head, which costs next to nothing
BUDGET = 2.0  # seconds for each kind of step, unless a single one takes longer
WORK_PER_CORE = 2e11  # operations of a measured step on a processor
MEAN = STD = (0.5, 0.5, 0.5)


def cost_here(params: Params) -> Iterator[str]:
    """What the params will cost on this machine, in lines."""
    yield f"What it will cost (measuring {params.backbone.name} at {params.image_size} pixels ...)"
    for line in cost_lines(params, measure(params)):
        yield f"  {line}"


def measure(params: Params) -> Speed:
    """Train a few micro-batches of noise at the image size of `params`; about 20 seconds at most.

    Raises:
        UserError: timm has no such architecture, or a micro-batch does not fit into the device's memory.
    """
    settings = params.training
    device = default_device()
    precision = resolve_precision(settings.precision, device)
    model = create_backbone(
        params.backbone.name,
        image_size=params.image_size,
        num_classes=CLASSES,
        global_pool=params.backbone.global_pool,
        drop_path=settings.drop_path,
    ).to(device)
    model.set_grad_checkpointing(settings.gradient_checkpointing)
    choose_attention_kernel(model, precision, device)
    optimizer = create_optimizer(model, settings)
    size = settings.batch_size // settings.accumulate
    if device.type == "cpu":  # as many images as a few seconds allow
        weights = sum(parameter.numel() for parameter in model.parameters())
        tokens = (params.image_size // patch_size(model)) ** 2
        work = 6 * weights * tokens  # of a training image: two operations per weight, forward and twice back
        size = min(size, max(1, int(WORK_PER_CORE * cores_of_process() / work)))

    side = params.image_size

    def train() -> None:
        with autocast(precision, device):
            loss = functional.cross_entropy(model(images).float(), labels)
        loss.backward()

    def forward() -> None:
        with torch.no_grad(), autocast(precision, device):
            model(images)

    try:
        images = torch.randn(size, 3, side, side, device=device)
        labels = torch.randint(0, CLASSES, (size,)).to(device)
        with torch.no_grad(), autocast(precision, device):
            model(images[:1])  # whatever a first call sets up
        model.train()
        train_batch = _seconds(train, device, BUDGET)
        optimizer_step = _seconds(optimizer.step, device, BUDGET)
        model.eval()
        forward_batch = _seconds(forward, device, BUDGET)
    except torch.OutOfMemoryError:
        raise UserError(
            f"{size} images of {side} pixels don't fit into the memory of "
            f"{device_name(device)} at once; raise training.accumulate, which splits a step, or set "
            "training.gradient_checkpointing: true"
        ) from None
    waiting = _loading(params)
    workers = loader_processes(settings.workers)

    def with_loading(compute: float) -> float:
        return max(compute, waiting / workers) if workers else compute + waiting

    return Speed(
        device=device_name(device) or device.type,
        precision=precision,
        train_image=with_loading(train_batch / size),
        forward_image=with_loading(forward_batch / size),
        step=optimizer_step,
        blocks=len(block_names(model)),
    )


def _loading(params: Params) -> float:
    """Seconds of one process to decode and augment a stored image."""
    side = Sides.of(params.image_size, params.resize).stored
    noise = np.random.default_rng(0).integers(0, 256, (side // 8 + 1, side // 8 + 1, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((side * 4 // 3, side), Image.Resampling.BICUBIC).save(file, "JPEG")
    transform = Preprocessing(params.image_size, MEAN, STD, resize=params.resize).training(
        params.training.augmentation
    )

    def load() -> None:
        transform(Image.open(io.BytesIO(file.getvalue())).convert("RGB"))

    return _seconds(load, torch.device("cpu"), 0.5)


def _seconds(call: Callable[[], object], device: torch.device, budget: float) -> float:
    """The median over calls that fit into the budget, after a first one; that alone if it takes longer."""

    def timed() -> float:
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    first = timed()
    if first >= budget:
        return first
    durations = [timed()]
    while sum(durations) + durations[-1] < budget:
        durations.append(timed())
    return statistics.median(durations)
