"""Images per second of plain fine-tuning, here and by timm's training script, and the wait for images.

    python -m benchmarks.throughput                       # ViT-S/14, 56 px, batch 32, fp32
    python -m benchmarks.throughput --workers 0 1 2       # with so many processes that load images
    python -m benchmarks.throughput --timm-fused          # timm's script with --opt-kwargs fused=True

Both train the same model from the same weights on the same folder of JPEGs, with the same augmentation,
optimiser, clipping, precision and loader processes, in turn; the ratio is that of the medians over all steps
but each run's first ones, the warm-up. `timm_script.py` says what is taken over from the script. Without
--data the folder is made up. The script decodes an image whenever it is its turn; `fit` once, before what is
measured.
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
from torchvision.datasets import ImageFolder

from benchmarks.in_turn import DEVICE, described, start, step_options
from benchmarks.measuring import print_head, print_row
from benchmarks.timm_script import train_by_timm
from stochca.config import Method
from stochca.config.training import Augmentation, Training
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
        for _ in range(inputs.settings.steps):
            asked.append(time.perf_counter())
            batch = next(iterator)
            got.append(time.perf_counter())
            yield batch

    with mock.patch.object(training, "training_batches", watched):
        training.fit(inputs, device=DEVICE)
    # The loop reads the norm of the gradients back at every step, so these are the device's seconds, too.
    return [(end - start, there - start) for start, there, end in zip(asked, got, asked[1:], strict=False)]


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
    parser.add_argument("--data", type=Path, help="a folder with train/CLASS/*.jpg")
    parser.add_argument("--timm-fused", action="store_true", help="give timm's script a fused optimiser")
    arguments = parser.parse_args()
    warm_up = arguments.warm_up
    if arguments.steps <= warm_up + 1:
        parser.error(f"--steps must be above {warm_up + 1}, because the first {warm_up} are not measured")

    with tempfile.TemporaryDirectory() as name:
        folder = arguments.data or Path(name)
        if arguments.data is None:
            write_images(folder, arguments.image_size)
        images = ImageFolder(str(folder / "train"))
        student, *_ = start(arguments, len(images.classes))
        print(described(arguments, f"timm {timm.__version__}"))
        print_head(
            *("loader processes", "here, images/s", "timm's script", "ratio"),
            *("waiting, here", "timm's script"),
        )
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
            preprocessing = Preprocessing(arguments.image_size, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

            # One image is validated on, once, at the end, which is not measured.
            task = Inputs(student, images, [images[0]], Method(), settings, preprocessing)
            here: list[Step] = []
            there: list[Step] = []
            for run in range(2 * arguments.runs):  # in turn; who goes first changes, too
                fresh = dataclasses.replace(task, student=copy.deepcopy(student))
                if run % 4 in (0, 3):
                    here += train_here(fresh)[warm_up:]
                else:
                    there += train_by_timm(fresh, folder, DEVICE, fused=arguments.timm_fused)[warm_up:]
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
