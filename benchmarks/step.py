"""What one training step costs: plain fine-tuning, StochCA, StochCA written naively, every other method.

    python -m benchmarks.step                      # ViT-S/14 at 70 px, fp32, p = 0.1
    python -m benchmarks.step --compile --methods finetune stochca   # each also with compiled blocks
    python -m benchmarks.step --methods finetune stochca --prob 0 0.1 1 --image-sizes 70 224
    python -m benchmarks.step --methods all --memory --steps 6
    python -m benchmarks.step --methods "fused attention" "matrix products" "channels last"

All take their steps in turn, in one process, on the same images and the same draws, so that a machine whose
speed drifts treats them alike. The draws stand for all that the probability gives. StochCA is as a method of
params.yaml has it: beside a student in fp32 its teacher computes in bf16 where the device does so natively;
there it is also timed with a teacher in fp32. The floor is what arithmetic allows at equal precision: a plain
step is three forward passes; the teacher adds its run up to the deepest drawn block, and a drawn student's
block saves its own keys and values. Memory: each method alone, in a process of its own, over what it took
before it built a model. What happens once before training (the head of LP-FT, DELTA's and Co-Tuning's pass
over training images, TOAST's pre-tuning) and evaluations are not counted.
"""

import argparse
import copy
import math
import random
import statistics
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import stochca  # noqa: F401  # isort: skip  (before torch and timm, see benchmarks/in_turn.py)
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.in_turn import DEVICE, described, in_turn, start, step_options
from benchmarks.measuring import alone, print_head, print_row
from stochca import config
from stochca._typing import TimmModule
from stochca.compute.compilation import compiled_blocks
from stochca.compute.devices import peak_memory_mb
from stochca.compute.precision import autocast, choose_attention_kernel
from stochca.config import Method, StochasticCrossAttention, build
from stochca.config.training import Training
from stochca.data.examples import Examples
from stochca.data.preprocessing import Preprocessing
from stochca.training.composition import compose, settled_teacher
from stochca.training.loss import Loss
from stochca.training.optimisation import create_optimizer

CLASSES = 10
STEPS = 1_000_000  # of the run that the steps are taken from: nothing ends


class NaiveStochCA(nn.Module):
    """The method as one would write it first: the whole teacher runs at every step, head included; every
    block computes and keeps all queries, keys and values; attention is two einsums and a softmax."""

    def __init__(self, student: TimmModule, teacher: TimmModule) -> None:
        super().__init__()
        self.student: TimmModule = student
        self.teacher = [teacher.requires_grad_(False).eval()]

    def forward(self, images: Tensor, cross_blocks: list[int]) -> Tensor:
        kept: list[tuple[Tensor, Tensor, Tensor]] = []
        with torch.no_grad():
            self.run(self.teacher[0], images, [], kept)
        return self.run(self.student, images, cross_blocks, kept)

    @staticmethod
    def run(
        model: TimmModule, images: Tensor, cross_blocks: list[int], kept: list[tuple[Tensor, Tensor, Tensor]]
    ) -> Tensor:
        """Logits. The teacher, which comes first, fills `kept`."""
        x = model.norm_pre(model._pos_embed(model.patch_embed(images)))
        for i, block in enumerate(model.blocks):
            attention = block.attn
            qkv = attention.qkv(block.norm1(x)).unflatten(-1, (3, attention.num_heads, attention.head_dim))
            query, key, value = qkv.unbind(2)
            if i in cross_blocks:
                _, key, value = kept[i]
            elif i == len(kept):
                kept.append((query, key, value))
            scores = torch.einsum("bqhd,bkhd->bhqk", query, key) * attention.scale
            mixed = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(dim=-1), value)
            x = x + block.ls1(attention.proj(mixed.flatten(2)))
            x = x + block.ls2(block.mlp(block.norm2(x)))
        return model.forward_head(model.norm(x))


STOCHCA = StochasticCrossAttention()
METHODS = {
    "finetune": Method(),
    "linear_probe": Method(adapter=config.HeadAlone()),
    "stochca": Method(attention=STOCHCA),
    "stochca, fp32 teacher": Method(attention=replace(STOCHCA, teacher_precision="same")),
    "stochca, per image": Method(attention=replace(STOCHCA, granularity="sample")),
    "ema": Method(average=config.Ema()),
    "swa": Method(average=config.Swa(start=0.0)),
    "swad": Method(average=config.Swad()),
    "stochca+swad": Method(attention=STOCHCA, average=config.Swad()),
    "l2sp": Method(penalties=(config.L2Sp(),)),
    "delta": Method(penalties=(config.Delta(attention=False),)),
    "bss": Method(penalties=(config.Bss(),)),
    "miro": Method(penalties=(config.Miro(),)),
    "cotuning": Method(penalties=(config.CoTuning(),)),
    "stochca+bss": Method(attention=STOCHCA, penalties=(config.Bss(),)),
    "lora": Method(adapter=config.Lora()),
    "stochca+lora": Method(adapter=config.Lora(), attention=STOCHCA),
    "vpt": Method(adapter=config.Vpt()),
    "toast": Method(adapter=config.Toast()),
    "toast_lite": Method(adapter=config.ToastLite()),
}
NAIVE, CHANNELS_LAST = "stochca, naive", "channels last"
KERNELS = {"fused attention": True, "matrix products": False}  # fine-tuning by each of timm's two ways
CHOICES = (*METHODS, NAIVE, *KERNELS, CHANNELS_LAST)


class Candidate:
    """One method with a model of its own, built as `stochca.training.fit.fit` does it."""

    def __init__(self, name: str, prob: float, arguments: argparse.Namespace) -> None:
        self.precision = arguments.precision
        method = METHODS.get(name, METHODS["finetune"])
        if isinstance(method.attention, StochasticCrossAttention):
            method = replace(method, attention=replace(method.attention, prob=prob))
        student, self.images, self.labels = start(arguments, CLASSES)
        choose_attention_kernel(student, self.precision, DEVICE)
        settings = Training(steps=STEPS, batch_size=arguments.batch_size, lr=1e-6)
        self.model, self.student = compose(method, student, precision=self.precision)
        self.model.to(DEVICE)
        self.teacher = settled_teacher(self.model, self.precision, DEVICE)
        preprocessing = Preprocessing(arguments.image_size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        images = noise(2 * CLASSES, arguments.image_size)
        examples = Examples(images, images, preprocessing, DEVICE, self.precision)
        source_head = nn.Linear(student.num_features, 1000).to(DEVICE).requires_grad_(False)
        self.loss = Loss(self.student, settings, 0, method.penalties, source_head, examples)
        self.optimizer = create_optimizer(self.student, settings, self.loss)
        self.averaging = build(method.average, self.student, STEPS)
        build(method.adapter).set_training_mode(self.model, self.student)
        if name == NAIVE:
            self.model = NaiveStochCA(student, copy.deepcopy(student))
        elif name == CHANNELS_LAST:  # of the patch embedding, the one convolution of a vision transformer
            self.student.to(memory_format=torch.channels_last)
            self.images = self.images.contiguous(memory_format=torch.channels_last)
        elif name in KERNELS:
            for block in student.blocks:
                block.attn.fused_attn = KERNELS[name]
        self.draws: list[list[int]] | None = None  # None: no block cross-attends, or each image has its own
        if isinstance(self.model, NaiveStochCA) or getattr(self.model, "granularity", "") == "block":
            self.draws = draws(prob, len(student.blocks), arguments.steps, arguments.warm_up)

    def train(self, step: int) -> None:
        self.backward(step, self.draws[step] if self.draws else None)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.averaging.after_step(self.student, step + 1)

    def backward(self, step: int, drawn: list[int] | None) -> None:
        model = self.model if drawn is None else partial(self.model, cross_blocks=drawn)
        with autocast(self.precision, DEVICE):
            loss = self.loss(model, self.images, self.labels, step + 1)
        loss.backward()

    def compile(self, until: ExitStack) -> None:
        """Compile the blocks; every variant of one has been met before anything is timed."""
        until.enter_context(compiled_blocks(self.student, self.teacher))
        last = len(self.student.blocks) - 1
        for drawn in ([], [0, last], [0, 1, last]) if self.draws else (None,):
            self.backward(0, drawn)


def noise(number: int, side: int) -> list[tuple[Image.Image, int]]:
    """Training images for what reads some before the first step."""
    pixels = np.random.default_rng(0).integers(0, 256, (number, side, side, 3), dtype=np.uint8)
    return [(Image.fromarray(image), i % CLASSES) for i, image in enumerate(pixels)]


def draws(prob: float, blocks: int, steps: int, warm_up: int) -> list[list[int]]:
    """The blocks drawn at each step: of many draws ordered by their cost, the middle one of each of `steps`
    equal parts, in random order. To warm up there are dear ones, for what is allocated once."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.rand(1000 * steps, blocks, generator=generator) < prob
    many = [row.nonzero().flatten().tolist() for row in chosen]
    typical = sorted(many, key=lambda row: (max(row, default=-1), len(row)))[500::1000]
    return [typical[-1]] * warm_up + random.Random(0).sample(typical, steps)


def floor(drawn: list[list[int]], student: TimmModule) -> float:
    """The least a step can cost relative to plain fine-tuning, counted in multiply-adds for these draws."""
    blocks, dim = len(student.blocks), student.embed_dim
    tokens = student.patch_embed.num_patches + student.num_prefix_tokens
    projection, attention, rest = 3 * dim, 2 * tokens, 9 * dim  # per token and channel of one block
    block = projection + attention + rest
    plain = 3 * blocks * block
    total = 0.0
    for row in drawn:
        teacher = 0.0 if not row else max(row) * block + projection * 2 / 3
        total += plain - 3 * len(row) * projection * 2 / 3 + teacher
    return total / (plain * len(drawn))


def measure_memory(name: str, prob: float, arguments: argparse.Namespace) -> float:
    """MB at the peak of two steps, over what the process took before."""
    before = peak_memory_mb(DEVICE)
    candidate = Candidate(name, prob, arguments)
    for step in range(2):
        candidate.train(step)
    return peak_memory_mb(DEVICE) - before


def measure(arguments: argparse.Namespace) -> None:
    """Print a table; the mean of the same steps, because draws differ, and a median would hide deep ones."""
    crossing = {name: name.startswith("stochca") for name in arguments.methods}
    rows = {
        f"{name}, p = {prob:g}" if crossing[name] else name: (name, prob)
        for name in crossing
        for prob in (arguments.prob if crossing[name] else [0.0])
    }
    candidates = {row: Candidate(*what, arguments) for row, what in rows.items()}
    with ExitStack() as until:
        if arguments.compile:
            compiled = {f"{row}, compiled": Candidate(*what, arguments) for row, what in rows.items()}
            for candidate in compiled.values():
                candidate.compile(until)
            candidates |= compiled
        steps = {row: candidate.train for row, candidate in candidates.items()}
        seconds = {
            row: statistics.fmean(values)
            for row, values in in_turn(steps, arguments.steps, arguments.warm_up).items()
        }
    floors = {
        row: f"{floor(candidate.draws[arguments.warm_up :], candidate.student):.3f}"
        if candidate.draws
        else ""
        for row, candidate in candidates.items()
    }
    del candidates, steps
    memory = {row: alone(measure_memory, *rows[row], arguments) for row in rows if arguments.memory}
    first = next(iter(rows))
    print(described(arguments, f"{arguments.steps} steps"), end="\n\n")
    print_head("", "step, ms", f"× {first}", "floor", *(["memory, MB", f"× {first}"] if memory else []))
    for row, value in seconds.items():
        cells = [row, f"{1000 * value:.0f}", f"{value / seconds[first]:.3f}", floors[row]]
        if memory:
            its = memory.get(row, math.nan)  # of compiled blocks it is not measured
            cells += [f"{its:.0f}", f"{its / (memory[first] or math.nan):.2f}"]
        print_row(*cells)


def main() -> None:
    parser = step_options(__doc__, steps=40, warm_up=3)
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=["all", *CHOICES],
        default=["finetune", "stochca", "stochca, fp32 teacher", NAIVE],
        metavar="NAME",
        help=f"of: all, {'; '.join(CHOICES)}; ratios are to the first",
    )
    parser.add_argument("--prob", type=float, nargs="+", default=[0.1], help="of StochCA, each in turn")
    parser.add_argument(
        "--image-sizes",
        type=int,
        nargs="+",
        help="in place of --image-size; the batch "
        "shrinks as images grow, so that a step sees about as many tokens",
    )
    parser.add_argument("--compile", action="store_true", help="also with torch.compile, block by block")
    parser.add_argument("--memory", action="store_true", help="measure the peak of memory, too")
    arguments = parser.parse_args()
    if "all" in arguments.methods:
        arguments.methods = list(METHODS)
    for size in arguments.image_sizes or [arguments.image_size]:
        batch_size = max(1, round(arguments.batch_size * (arguments.image_size / size) ** 2))
        measure(argparse.Namespace(**{**vars(arguments), "image_size": size, "batch_size": batch_size}))


if __name__ == "__main__":
    main()
