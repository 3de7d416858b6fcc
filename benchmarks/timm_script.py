"""timm's training script, as far as it decides how many images per second are trained on.

The script `train.py` is in timm's repository and in none of its packages, so its loop is stated again here,
in our words, out of the public pieces of timm 1.0 that it is made of: dataset, loader with the prefetcher
that normalises whole batches, task, optimiser, schedule, clipping, and the loss that is read back at every
step. Evaluations and checkpoints, which it makes once per epoch, are left out.
"""

import logging
import time
from pathlib import Path

import torch
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import ClassificationTask
from timm.utils import AverageMeter, dispatch_clip_grad

from stochca.compute.precision import autocast
from stochca.data.batches import loader_processes
from stochca.training.inputs import Inputs

LOG_EVERY = 50  # the script's default

logger = logging.getLogger("timm_script")


def train_by_timm(
    inputs: Inputs, folder: Path, device: torch.device, *, fused: bool = False
) -> list[tuple[float, float]]:
    """Of every step the seconds that it took, and how many of them it waited for its images.

    `fused` stands for the script's option `--opt-kwargs fused=True`.
    """
    model, settings, preprocessing = inputs.student.to(device), inputs.settings, inputs.preprocessing
    optimizer = create_optimizer_v2(
        model,
        opt=settings.optimizer,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        **({"fused": True} if fused else {}),
    )
    task = ClassificationTask(model, device=device, verbose=False)
    loader = create_loader(
        create_dataset("", root=str(folder), split="train", is_training=True),
        input_size=(3, preprocessing.image_size, preprocessing.image_size),
        batch_size=settings.batch_size,
        is_training=True,
        scale=settings.augmentation.scale,
        ratio=settings.augmentation.ratio,
        hflip=settings.augmentation.horizontal_flip,
        color_jitter=0.0,
        interpolation=preprocessing.interpolation,
        mean=preprocessing.mean,
        std=preprocessing.std,
        num_workers=loader_processes(settings.workers),
        device=device,
    )
    epochs = -(-settings.steps // len(loader))
    schedule, _ = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=epochs, warmup_epochs=0, updates_per_epoch=len(loader)
    )
    losses = AverageMeter()
    times: list[tuple[float, float]] = []
    for epoch in range(epochs):
        task.train()
        optimizer.zero_grad()
        started = time.perf_counter()
        for images, labels in loader:
            waited = time.perf_counter() - started
            with autocast(settings.precision, device):
                loss = task(images, labels)["loss"]
            loss.backward()
            if settings.clip_grad is not None:
                dispatch_clip_grad(model.parameters(), value=settings.clip_grad)
            optimizer.step()
            losses.update(loss.item(), len(images))
            optimizer.zero_grad()
            schedule.step_update(num_updates=len(times) + 1, metric=losses.avg)
            if len(times) % LOG_EVERY == 0:
                logger.info("step %d, loss %.3f", len(times), losses.val)
            times.append((time.perf_counter() - started, waited))
            if len(times) == settings.steps:
                return times
            started = time.perf_counter()
        schedule.step(epoch + 1, losses.avg)
    return times
