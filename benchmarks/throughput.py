"""Images per second of plain fine-tuning, here and by timm's training script, and the wait for images.

    python benchmarks/throughput.py                       # ViT-S/14, 56 px, batch 32, fp32
    python benchmarks/throughput.py --workers 0 1 2       # with so many processes that load images
    python benchmarks/throughput.py --timm-fused          # timm's script with --opt-kwargs fused=True

Both train the same model from the same weights on the same folder of JPEGs, with the same augmentation,
optimiser, clipping, precision and loader processes, in turn; the ratio is that of the medians over all steps
but each run's first ten. `timm_script.py` says what is taken over from the script. Without --data the folder
is made up. The script decodes an image whenever it is its turn; `fit` once, before what is measured.
"""

import argparse
import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent))

import stochca  # noqa: F401  # isort: skip  (before timm, which it lets import torchvision)
import numpy as np
import timm
import torch
from PIL import Image

from benchmarks.timm_script import train_by_timm
from stochca._typing import TimmModule
from stochca.compute.devices import default_device, device_name
from stochca.config import Method
from stochca.config.training import Augmentation, Training
from stochca.data.preprocessing import Preprocessing
from stochca.training import fit as training

Step = tuple[float, float]  # the seconds that it took, and how many of them it waited for its images

WARM_UP = 10  # steps; a run's first ones
CLASSES, IMAGES = 9, 576  # of the folder that is made up


class Folder:
    """The images of FOLDER/train/CLASS/*, decoded whenever one is asked for."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(path for path in (folder / "train").glob("*/*") if path.is_file())
        self.classes = sorted({path.parent.name for path in self.paths})

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        path = self.paths[index]
        return Image.open(path).convert("RGB"), self.classes.index(path.parent.name)


class First:
    """The first image alone: `fit` evaluates once, at the end, which is not measured."""

    def __init__(self, images: Folder) -> None:
        self.images = images

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.images[0]


@dataclass(frozen=True)
class Task:
    """What both are asked to do."""

    start: TimmModule  # stays as it is
    folder: Path
    settings: Training
    preprocessing: Preprocessing
    device: torch.device


def train_here(task: Task) -> list[Step]:
    images = Folder(task.folder)
    asked, got = [], []  # when each batch was asked for, and when it was there
    batches = training.training_batches

    def watched(*arguments: Any, **options: Any) -> Iterator[Any]:
        iterator = batches(*arguments, **options)
        for _ in range(task.settings.steps):
            asked.append(time.perf_counter())
            batch = next(iterator)
            got.append(time.perf_counter())
            yield batch

    with mock.patch.object(training, "training_batches", watched):
        training.fit(
            copy.deepcopy(task.start),
            images,
            First(images),
            method=Method(),
            settings=task.settings,
            preprocessing=task.preprocessing,
            device=task.device,
        )
    # The loop reads the norm of the gradients back at every step, so these are the device's seconds, too.
    return [(end - start, there - start) for start, there, end in zip(asked, got, asked[1:], strict=False)]


def train_there(task: Task, *, fused: bool) -> list[Step]:
    return train_by_timm(
        copy.deepcopy(task.start), task.folder, task.settings, task.preprocessing, task.device, fused=fused
    )


def compared(task: Task, runs: int, *, fused: bool) -> tuple[list[Step], list[Step]]:
    """The steps here and there, trained in turn; who goes first changes, too."""
    here: list[Step] = []
    there: list[Step] = []
    for run in range(runs):
        if run % 2:
            there += train_there(task, fused=fused)[WARM_UP:]
        here += train_here(task)[WARM_UP:]
        if run % 2 == 0:
            there += train_there(task, fused=fused)[WARM_UP:]
    return here, there


def images_per_second(steps: list[Step], batch_size: int) -> float:
    return batch_size / statistics.median(seconds for seconds, _ in steps)


def share_waited(steps: list[Step]) -> float:
    return sum(waited for _, waited in steps) / sum(seconds for seconds, _ in steps)


def write_images(folder: Path, side: int) -> None:
    """JPEGs of smooth noise, which are about as hard to decode as photographs."""
    random = np.random.default_rng(0)
    for i in range(IMAGES):
        path = folder / "train" / f"class {i % CLASSES}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vit_small_patch14_dinov2")
    parser.add_argument("--image-size", type=int, default=56)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--workers", type=int, nargs="+", default=[0], help="processes that load images")
    parser.add_argument("--runs", type=int, default=3, help="of each of the two")
    parser.add_argument("--steps", type=int, default=30, help="of a run")
    parser.add_argument("--data", type=Path, help="a folder with train/CLASS/*.jpg")
    parser.add_argument("--timm-fused", action="store_true", help="give timm's script a fused optimiser")
    arguments = parser.parse_args()
    if arguments.steps <= WARM_UP + 1:
        parser.error(f"--steps must be above {WARM_UP + 1}, because the first {WARM_UP} are not measured")

    device = default_device()
    size = arguments.image_size
    preprocessing = Preprocessing(size, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.data or Path(name)
        if arguments.data is None:
            write_images(folder, size)
        torch.manual_seed(0)
        start = timm.create_model(arguments.model, img_size=size, num_classes=len(Folder(folder).classes))
        print(
            f"{arguments.model}, {size} px, batch {arguments.batch_size}, {arguments.precision}; "
            f"torch {torch.__version__}, timm {timm.__version__}, {device_name(device)}, "
            f"{torch.get_num_threads()} threads"
        )
        print("| loader processes | here, images/s | timm's script | ratio | waiting, here | timm's script |")
        print("| --: | --: | --: | --: | --: | --: |")
        for workers in arguments.workers:
            settings = Training(
                steps=arguments.steps,
                batch_size=arguments.batch_size,
                lr=3e-5,
                clip_grad=1.0,
                precision=arguments.precision,
                eval_every=arguments.steps,
                checkpoint_every=arguments.steps,
                workers=workers,
                augmentation=Augmentation(scale=(0.6, 1.0)),
            )
            task = Task(start, folder, settings, preprocessing, device)
            here, there = compared(task, arguments.runs, fused=arguments.timm_fused)
            mine, theirs = (images_per_second(steps, arguments.batch_size) for steps in (here, there))
            print(
                f"| {workers} | {mine:.1f} | {theirs:.1f} | {mine / theirs:.3f} "
                f"| {share_waited(here):.1%} | {share_waited(there):.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
