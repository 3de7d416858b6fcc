"""What one training step of every method costs, relative to plain fine-tuning: time and peak memory.

    python benchmarks/methods.py                       # ViT-S/14 at 70 px, fp32
    python benchmarks/methods.py --model vit_base_patch16_224 --image-size 224 --precision bf16

Time: all methods take their steps in turn, in one process, on the same images, so that a machine whose speed
drifts treats them alike. Which blocks cross-attend is not left to luck, which a few steps would not even out:
the steps have the draws from the middle of equal parts of all, ordered by what they cost. Memory: each method
alone, in a process of its own, over what that process took before it built a model. What happens once before
training (the head of LP-FT, DELTA's and Co-Tuning's look at training images, TOAST's pre-tuning) and looks at
validation are not counted.
"""

import argparse
import math
import random
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import stochca  # isort: skip  (before timm, which it lets import torchvision)
import numpy as np
import timm
import torch
from PIL import Image
from torch import nn

from benchmarks.step import draws, step_parser, synchronise
from stochca.averaging import start_averaging
from stochca.compute.devices import default_device, device_name, peak_memory_mb
from stochca.compute.precision import autocast, choose_attention_kernel
from stochca.config import (
    Bss,
    CoTuning,
    Delta,
    Ema,
    HeadAlone,
    L2Sp,
    Lora,
    Method,
    Miro,
    StochasticCrossAttention,
    Swa,
    Swad,
    Toast,
    ToastLite,
    Vpt,
)
from stochca.config.training import Training
from stochca.data.examples import Examples
from stochca.data.preprocessing import Preprocessing
from stochca.training.composition import adaptation, compose, settled_teacher
from stochca.training.loss import Loss
from stochca.training.optimisation import create_optimizer

CLASSES = 10
PROB = 0.1
STOCHCA = StochasticCrossAttention(prob=PROB)
METHODS = {
    "finetune": Method(),
    "linear_probe": Method(adapter=HeadAlone()),
    "stochca": Method(attention=STOCHCA),
    "stochca, per image": Method(attention=StochasticCrossAttention(prob=0.1, granularity="sample")),
    "ema": Method(average=Ema()),
    "swa": Method(average=Swa(start=0.0)),
    "swad": Method(average=Swad()),
    "stochca+swad": Method(attention=STOCHCA, average=Swad()),
    "l2sp": Method(penalties=(L2Sp(),)),
    "delta": Method(penalties=(Delta(attention=False),)),
    "bss": Method(penalties=(Bss(),)),
    "miro": Method(penalties=(Miro(),)),
    "cotuning": Method(penalties=(CoTuning(),)),
    "stochca+bss": Method(attention=STOCHCA, penalties=(Bss(),)),
    "lora": Method(adapter=Lora()),
    "stochca+lora": Method(adapter=Lora(), attention=STOCHCA),
    "vpt": Method(adapter=Vpt()),
    "toast": Method(adapter=Toast()),
    "toast_lite": Method(adapter=ToastLite()),
}


class Noise:
    """Training images for what looks at some before the first step."""

    def __init__(self, number: int, side: int) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 256, (number, side, side, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index]), index % CLASSES


class Candidate:
    """One method with a model of its own, built as `stochca.training.fit.fit` does it."""

    def __init__(self, method: Method, arguments: argparse.Namespace, device: torch.device) -> None:
        torch.manual_seed(0)
        self.precision, self.device = arguments.precision, device
        student = timm.create_model(arguments.model, img_size=arguments.image_size, num_classes=CLASSES).to(
            device
        )
        choose_attention_kernel(student, self.precision, device)
        settings = Training(steps=1_000_000, batch_size=arguments.batch_size, lr=1e-6, warmup_steps=0)
        self.model, self.student = compose(method, student, precision=self.precision)
        self.model.to(device)
        settled_teacher(self.model, self.precision, device)
        preprocessing = Preprocessing(arguments.image_size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        noise = Noise(2 * CLASSES, arguments.image_size)
        examples = Examples(noise, noise, preprocessing, device, self.precision)
        source_head = nn.Linear(student.num_features, 1000).to(device).requires_grad_(False)
        self.loss = Loss(self.student, settings, 0, method.penalties, source_head, examples)
        self.optimizer = create_optimizer(self.student, settings, self.loss)
        self.averaging = start_averaging(method.average, self.student, settings.steps)
        adaptation(method.adapter).set_training_mode(self.model, self.student)
        self.step = 0
        self.draws: list[list[int]] | None = None  # None: no block cross-attends, or each image has its own
        if isinstance(self.model, stochca.StochCA) and self.model.granularity == "block":
            self.draws = draws(PROB, self.model.num_blocks, arguments.steps, arguments.warm_up)

    def train(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        """Take a step; returns its seconds."""
        model = partial(self.model, cross_blocks=self.draws[self.step]) if self.draws else self.model
        synchronise(self.device)
        started = time.perf_counter()
        self.step += 1
        with autocast(self.precision, self.device):
            loss = self.loss(model, images, labels, self.step)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.averaging.after_step(self.student, self.step)
        synchronise(self.device)
        return time.perf_counter() - started


def batch(arguments: argparse.Namespace, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    size = arguments.image_size
    images = torch.randn(arguments.batch_size, 3, size, size, device=device)
    return images, torch.randint(0, CLASSES, (arguments.batch_size,), device=device)


def time_steps(names: list[str], arguments: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """Mean seconds of a step of each method."""
    images, labels = batch(arguments, device)
    candidates = {name: Candidate(METHODS[name], arguments, device) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    order = random.Random(0)
    for i in range(arguments.warm_up + arguments.steps):
        for name in order.sample(names, len(names)):
            taken = candidates[name].train(images, labels)
            if i >= arguments.warm_up:
                seconds[name].append(taken)
        print(f"\rstep {i + 1} of {arguments.warm_up + arguments.steps}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {name: statistics.fmean(values) for name, values in seconds.items()}


def measure_memory(name: str, arguments: argparse.Namespace, device: torch.device) -> float:
    """MB at the peak of two steps, over what the process took before."""
    before = peak_memory_mb(device)
    images, labels = batch(arguments, device)
    candidate = Candidate(METHODS[name], arguments, device)
    for _ in range(2):
        candidate.train(images, labels)
    return peak_memory_mb(device) - before


def memory_of_each(names: list[str], arguments: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """`measure_memory` of each method in a process of its own, which has torch imported already."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["stochca", "timm.data", "stochca.config", "stochca.training.fit"])
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as alone:
        found = alone.map(partial(measure_memory, arguments=arguments, device=device), names)
        return dict(zip(names, found, strict=True))


def main() -> None:
    parser = step_parser(__doc__, steps=6, warm_up=1)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME")
    arguments = parser.parse_args()
    device = default_device()
    names = list(dict.fromkeys(["finetune", *arguments.methods]))
    seconds = time_steps(names, arguments, device)
    memory = memory_of_each(names, arguments, device)
    print(
        f"{arguments.model}, {arguments.image_size} px, batch {arguments.batch_size}, "
        f"{arguments.precision}, {arguments.steps} steps; torch {torch.__version__}, {device_name(device)}\n"
    )
    print("| method | step, ms | × finetune | peak memory, MB | × finetune |")
    print("| --- | --: | --: | --: | --: |")
    for name in names:
        print(
            f"| {name} | {1000 * seconds[name]:.0f} | {seconds[name] / seconds['finetune']:.2f} "
            f"| {memory[name]:.0f} | {memory[name] / (memory['finetune'] or math.nan):.2f} |"
        )


if __name__ == "__main__":
    main()
