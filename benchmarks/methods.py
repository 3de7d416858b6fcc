"""What one training step of every method costs, relative to plain fine-tuning: time and peak memory.

    python benchmarks/methods.py                       # ViT-S/14 at 70 px, fp32
    python benchmarks/methods.py --model vit_base_patch16_224 --image-size 224 --precision bf16

Time: all methods take their steps in turn, in one process, on the same images, so that a machine whose speed
drifts treats them alike. Which blocks cross-attend is not left to luck, which a few steps would not even out:
the steps have the draws from the middle of equal parts of all, ordered by what they cost. Memory: each method
alone, in a process of its own, over what that process took before it built a model. What happens once before
training (the head of LP-FT, DELTA's and Co-Tuning's pass over training images, TOAST's pre-tuning) and
evaluations are not counted.
"""

import argparse
import math
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import stochca  # isort: skip  (before torch and timm, see benchmarks/in_turn.py)
import numpy as np
from PIL import Image
from torch import nn

from benchmarks.in_turn import DEVICE, described, in_turn, start, step_options
from benchmarks.measuring import print_head, print_row
from benchmarks.step import draws
from stochca.averaging import start_averaging
from stochca.compute.devices import peak_memory_mb
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


def noise(number: int, side: int) -> list[tuple[Image.Image, int]]:
    """Training images for what reads some before the first step."""
    pixels = np.random.default_rng(0).integers(0, 256, (number, side, side, 3), dtype=np.uint8)
    return [(Image.fromarray(image), i % CLASSES) for i, image in enumerate(pixels)]


class Candidate:
    """One method with a model of its own, built as `stochca.training.fit.fit` does it."""

    def __init__(self, method: Method, arguments: argparse.Namespace) -> None:
        self.precision = arguments.precision
        student, self.images, self.labels = start(arguments, CLASSES)
        choose_attention_kernel(student, self.precision, DEVICE)
        settings = Training(steps=1_000_000, batch_size=arguments.batch_size, lr=1e-6, warmup_steps=0)
        self.model, self.student = compose(method, student, precision=self.precision)
        self.model.to(DEVICE)
        settled_teacher(self.model, self.precision, DEVICE)
        preprocessing = Preprocessing(arguments.image_size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        images = noise(2 * CLASSES, arguments.image_size)
        examples = Examples(images, images, preprocessing, DEVICE, self.precision)
        source_head = nn.Linear(student.num_features, 1000).to(DEVICE).requires_grad_(False)
        self.loss = Loss(self.student, settings, 0, method.penalties, source_head, examples)
        self.optimizer = create_optimizer(self.student, settings, self.loss)
        self.averaging = start_averaging(method.average, self.student, settings.steps)
        adaptation(method.adapter).set_training_mode(self.model, self.student)
        self.draws: list[list[int]] | None = None  # None: no block cross-attends, or each image has its own
        if isinstance(self.model, stochca.StochCA) and self.model.granularity == "block":
            self.draws = draws(PROB, self.model.num_blocks, arguments.steps, arguments.warm_up)

    def train(self, step: int) -> None:
        model = partial(self.model, cross_blocks=self.draws[step]) if self.draws else self.model
        with autocast(self.precision, DEVICE):
            loss = self.loss(model, self.images, self.labels, step + 1)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.averaging.after_step(self.student, step + 1)


def measure_memory(name: str, arguments: argparse.Namespace) -> float:
    """MB at the peak of two steps, over what the process took before."""
    before = peak_memory_mb(DEVICE)
    candidate = Candidate(METHODS[name], arguments)
    for step in range(2):
        candidate.train(step)
    return peak_memory_mb(DEVICE) - before


def memory_of_each(names: list[str], arguments: argparse.Namespace) -> dict[str, float]:
    """`measure_memory` of each method in a process of its own, which has torch imported already."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["stochca", "timm.data", "stochca.config", "stochca.training.fit"])
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as alone:
        return dict(zip(names, alone.map(partial(measure_memory, arguments=arguments), names), strict=True))


def main() -> None:
    parser = step_options(__doc__, steps=6, warm_up=1)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME")
    arguments = parser.parse_args()
    names = list(dict.fromkeys(["finetune", *arguments.methods]))
    candidates = {name: Candidate(METHODS[name], arguments).train for name in names}
    timed = in_turn(candidates, arguments.steps, arguments.warm_up)
    seconds = {name: statistics.fmean(values) for name, values in timed.items()}
    del candidates
    memory = memory_of_each(names, arguments)
    print(described(arguments, f"{arguments.steps} steps"), end="\n\n")
    print_head("method", "step, ms", "× finetune", "peak memory, MB", "× finetune")
    for name in names:
        slower, larger = (of[name] / (of["finetune"] or math.nan) for of in (seconds, memory))
        print_row(
            name, f"{1000 * seconds[name]:.0f}", f"{slower:.2f}", f"{memory[name]:.0f}", f"{larger:.2f}"
        )


if __name__ == "__main__":
    main()
