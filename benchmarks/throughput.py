"""Images per second of plain fine-tuning, here and by timm's training script, and the wait for images.

    python -m benchmarks.throughput                       # ViT-S/14, 56 px, batch 32, fp32
    python -m benchmarks.throughput --workers 0 1 2       # with so many processes that load images
    python -m benchmarks.throughput --timm-fused          # timm's script with --opt-kwargs fused=True

Both train the same model from the same weights on the same folder of made-up JPEGs, with the same
augmentation, optimiser, clipping, precision and loader processes, in turn; the ratio is that of the medians
over all steps but each run's first ones, the warm-up. The script decodes an image whenever it is its turn;
`fit` once, before what is measured.

The script `train.py` is in timm's repository and in none of its packages, so its loop is stated again here,
in our words, out of the public pieces of timm 1.0 that it is made of: dataset, loader with the prefetcher
that normalises whole batches, task, optimiser, schedule, clipping, and the loss that is read back at every
step. Evaluations and checkpoints, which it makes once per epoch, are left out.
"""

import copy
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import stochca  # noqa: F401  # isort: skip  (before torch and timm, see benchmarks/in_turn.py)
import numpy as np
import timm
from PIL import Image
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import ClassificationTask
from timm.utils import AverageMeter, dispatch_clip_grad
from torchvision.datasets import ImageFolder

from benchmarks.in_turn import DEVICE, described, start, step_options
from benchmarks.measuring import print_head, print_row
from stochca.compute.precision import autocast
from stochca.config import Method
from stochca.config.training import Augmentation, Training
from stochca.data.batches import loader_processes
from stochca.data.preprocessing import Preprocessing
from stochca.training import fit as training
from stochca.training.inputs import Inputs

Step = tuple[float, float]  # the seconds that it took, and how many of them it waited for its images

CLASSES, IMAGES = 9, 576  # of the folder that is made up


def train_here(inputs: Inputs) -> list[Step]:
    asked, got = [], []  # when each batch was asked for, and when it was there
    batches = training.training_batches

    def watched(*arguments: Any, **options: Any) -> Iterator[Any]:
        iterator = batches(*arguments, **options)
        for _ in range(inputs.timetable.steps):
            asked.append(time.perf_counter())
            batch = next(iterator)
            got.append(time.perf_counter())
            yield batch

    with mock.patch.object(training, "training_batches", watched):
        training.fit(inputs, device=DEVICE)
    # The loop reads the norm of the gradients back at every step, so these are the device's seconds, too.
    return [(end - start, there - start) for start, there, end in zip(asked, got, asked[1:], strict=False)]


def train_by_timm(inputs: Inputs, folder: Path, *, fused: bool) -> list[Step]:
    """`fused` stands for the script's option `--opt-kwargs fused=True`."""
    model, settings, preprocessing = inputs.student.to(DEVICE), inputs.settings, inputs.preprocessing
    optimizer = create_optimizer_v2(
        model,
        opt=settings.optimizer,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        **({"fused": True} if fused else {}),
    )
    task = ClassificationTask(model, device=DEVICE, verbose=False)
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
        device=DEVICE,
    )
    epochs = -(-inputs.timetable.steps // len(loader))
    schedule, _ = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=epochs, warmup_epochs=0, updates_per_epoch=len(loader)
    )
    losses = AverageMeter()
    steps: list[Step] = []
    for epoch in range(epochs):
        task.train()
        optimizer.zero_grad()
        started = time.perf_counter()
        for images, labels in loader:
            waited = time.perf_counter() - started
            with autocast(settings.precision, DEVICE):
                loss = task(images, labels)["loss"]
            loss.backward()
            dispatch_clip_grad(model.parameters(), value=settings.clip_grad)
            optimizer.step()
            losses.update(loss.item(), len(images))
            optimizer.zero_grad()
            schedule.step_update(num_updates=len(steps) + 1, metric=losses.avg)
            steps.append((time.perf_counter() - started, waited))
            started = time.perf_counter()
        schedule.step(epoch + 1, losses.avg)
    return steps[: inputs.timetable.steps]


def write_images(folder: Path, side: int) -> None:
    """JPEGs of smooth noise, which are about as hard to decode as photographs."""
    random = np.random.default_rng(0)
    for i in range(IMAGES):
        path = folder / "train" / f"class {i % CLASSES}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)


def main() -> None:
    parser = step_options(__doc__, steps=30, warm_up=10, image_size=56)
    parser.add_argument("--workers", type=int, nargs="+", default=[0], help="processes that load images")
    parser.add_argument("--runs", type=int, default=3, help="of each of the two")
    parser.add_argument("--timm-fused", action="store_true", help="give timm's script a fused optimiser")
    arguments = parser.parse_args()
    warm_up = arguments.warm_up
    if arguments.steps <= warm_up + 1:
        parser.error(f"--steps must be above {warm_up + 1}, because the first {warm_up} are not measured")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, arguments.image_size)
        images = ImageFolder(str(folder / "train"))
        student, *_ = start(arguments, CLASSES)
        settings = Training(
            steps=arguments.steps,
            batch_size=arguments.batch_size,
            lr=3e-5,
            clip_grad=1.0,
            precision=arguments.precision,
            evaluations=1,
            checkpoints=1,
            augmentation=Augmentation(scale=(0.6, 1.0)),
        )
        preprocessing = Preprocessing(arguments.image_size, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        # One image is validated on, once, at the end, which is not measured.
        task = Inputs(student, images, [images[0]], Method(), settings, preprocessing)
        print(described(arguments, f"timm {timm.__version__}"))
        print_head(
            *("loader processes", "here, images/s", "timm's script", "ratio"),
            *("waiting, here", "timm's script"),
        )
        for workers in arguments.workers:
            here: list[Step] = []
            there: list[Step] = []
            for run in range(2 * arguments.runs):  # in turn; who goes first changes, too
                fresh = dataclasses.replace(
                    task,
                    student=copy.deepcopy(student),
                    settings=dataclasses.replace(settings, workers=workers),
                )
                if run % 4 in (0, 3):
                    here += train_here(fresh)[warm_up:]
                else:
                    there += train_by_timm(fresh, folder, fused=arguments.timm_fused)[warm_up:]
            mine, theirs = (
                arguments.batch_size / statistics.median(seconds for seconds, _ in steps)
                for steps in (here, there)
            )
            waited = [
                sum(wait for _, wait in steps) / sum(each for each, _ in steps) for steps in (here, there)
            ]
            print_row(
                *(str(workers), f"{mine:.1f}", f"{theirs:.1f}", f"{mine / theirs:.3f}"),
                *(f"{share:.1%}" for share in waited),
            )


if __name__ == "__main__":
    main()
