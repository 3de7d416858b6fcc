"""What one training step costs: plain fine-tuning, StochCA, and StochCA written naively.

    python benchmarks/step.py                      # ViT-S/14 at 70 px, fp32, p = 0.1
    python benchmarks/step.py --precision bf16 --model vit_base_patch16_224 --image-size 224 --prob 0.3
    python benchmarks/step.py --compile            # plain and StochCA, also with compiled blocks
    python benchmarks/step.py --attention          # fused attention against matrix products

All take their steps in turn, in one process, on the same images and the same draws, so that a machine
whose speed drifts treats them alike; ratios of the means are printed. The draws stand for all that the
probability gives. StochCA is as a method of params.yaml has it: beside a student in fp32 its teacher computes
in bf16 where the device does so natively; there it is also timed with a teacher in fp32. The floor is what
arithmetic allows at equal precision: a plain step is three forward passes; the teacher adds its run up to the
deepest drawn block, and a drawn student's block saves its own keys and values.
"""

import argparse
import copy
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import stochca  # isort: skip  (before timm, which it lets import torchvision)
import timm
import torch
from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.compute.compilation import compiled_blocks, uncompiled
from stochca.compute.devices import default_device
from stochca.compute.precision import autocast, choose_attention_kernel
from stochca.config import Method, StochasticCrossAttention
from stochca.timm_models.families import blocks_of
from stochca.training.composition import compose, settled_teacher


class NaiveStochCA(nn.Module):
    """The method as one would write it first: the whole teacher runs at every step, head included; every
    block computes and keeps all queries, keys and values; attention is two einsums and a softmax."""

    def __init__(self, student: TimmModule, teacher: TimmModule) -> None:
        super().__init__()
        self.student: TimmModule = student
        self.teacher = [teacher.requires_grad_(False).eval()]

    def forward(self, images: Tensor, cross_blocks: list[int]) -> Tensor:
        student, teacher = self.student, self.teacher[0]
        kept: list[tuple[Tensor, Tensor, Tensor]] = []

        def keep(i: int, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
            kept.append((query, key, value))
            return key, value

        def exchange(i: int, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
            return kept[i][1:] if i in cross_blocks else (key, value)

        with torch.no_grad():
            self.run(teacher, images, keep)
        return self.run(student, images, exchange)

    @staticmethod
    def run(model: TimmModule, images: Tensor, exchange: Callable[..., tuple[Tensor, Tensor]]) -> Tensor:
        x = model.norm_pre(model._pos_embed(model.patch_embed(images)))
        for i, block in enumerate(model.blocks):
            attention = block.attn
            qkv = attention.qkv(block.norm1(x)).unflatten(-1, (3, attention.num_heads, attention.head_dim))
            query, key, value = qkv.unbind(2)
            key, value = exchange(i, query, key, value)
            scores = torch.einsum("bqhd,bkhd->bhqk", query, key) * attention.scale
            mixed = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(dim=-1), value)
            x = x + block.ls1(attention.proj(mixed.flatten(2)))
            x = x + block.ls2(block.mlp(block.norm2(x)))
        return model.forward_head(model.norm(x))


METHOD = Method(attention=StochasticCrossAttention())
NAIVE, FP32_TEACHER = "naive StochCA", "StochCA, fp32 teacher"


def draws(prob: float, blocks: int, steps: int, warm_up: int) -> list[list[int]]:
    """The blocks drawn at each step: of many draws ordered by their cost, the middle one of each of `steps`
    equal parts, in random order. To warm up there are dear ones, for what is allocated once."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.rand(1000 * steps, blocks, generator=generator) < prob
    many = [row.nonzero().flatten().tolist() for row in chosen]
    typical = sorted(many, key=lambda row: (max(row, default=-1), len(row)))[500::1000]
    return [typical[-1]] * warm_up + random.Random(0).sample(typical, steps)


def floor(drawn: list[list[int]], blocks: int, tokens: int, dim: int) -> float:
    """The least a step can cost relative to plain fine-tuning, counted in multiply-adds for these draws."""
    projection, attention, rest = 3 * dim, 2 * tokens, 9 * dim  # per token and channel of one block
    block = projection + attention + rest
    plain = 3 * blocks * block
    total = 0.0
    for row in drawn:
        teacher = 0.0 if not row else max(row) * block + projection * 2 / 3
        total += plain - 3 * len(row) * projection * 2 / 3 + teacher
    return total / (plain * len(drawn))


def time_steps(
    steps: dict[str, Callable[[list[int]], Tensor]],
    parameters: list[nn.Parameter],
    drawn: list[list[int]],
    warm_up: int,
    device: torch.device,
) -> dict[str, list[float]]:
    """Seconds of every optimiser step of each candidate, taken in turn."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-6, fused=True)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    order = random.Random(0)
    for i, row in enumerate(drawn):
        # Each follows each: a step pays for the memory that the one before it left behind.
        for name in order.sample(list(steps), len(steps)):
            step = steps[name]
            synchronise(device)
            started = time.perf_counter()
            step(row).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            synchronise(device)
            if i >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def set_up(
    arguments: argparse.Namespace, size: int, batch_size: int, device: torch.device
) -> tuple[TimmModule, stochca.StochCA, Callable[[Callable[[Tensor], Tensor]], Tensor]]:
    """A student, StochCA around it as `fit` has it, and the loss of either on a batch."""
    torch.manual_seed(0)
    student = timm.create_model(arguments.model, img_size=size, num_classes=100).to(device).train()
    model, _ = compose(METHOD, student, precision=arguments.precision)
    assert isinstance(model, stochca.StochCA)
    choose_attention_kernel(student, arguments.precision, device)
    settled_teacher(model, arguments.precision, device)
    images = torch.randn(batch_size, 3, size, size, device=device)
    labels = torch.randint(0, 100, (batch_size,), device=device)

    def loss_of(forward: Callable[[Tensor], Tensor]) -> Tensor:
        with autocast(arguments.precision, device):
            return nn.functional.cross_entropy(forward(images).float(), labels)

    return student, model, loss_of


@contextmanager
def compiled_if_asked(
    arguments: argparse.Namespace, model: stochca.StochCA, step: Callable[[list[int]], Tensor]
) -> Iterator[None]:
    """With --compile, every variant of a block has been met before anything is timed."""
    if not arguments.compile:
        yield
        return
    last = model.num_blocks - 1
    with compiled_blocks(model.student, model.teacher):
        for row in ([], [0, last], [0, 1, last]):
            step(row).backward()
        yield


def eagerly(models: list[TimmModule], step: Callable[[list[int]], Tensor]) -> Callable[[list[int]], Tensor]:
    """`step` as it is without `compiled_blocks`."""

    def eager(row: list[int]) -> Tensor:
        with ExitStack() as stack:
            for model in models:
                for block in blocks_of(model):
                    stack.enter_context(uncompiled(block))
            return step(row)

    return eager


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def step_parser(description: str | None, *, steps: int, warm_up: int) -> argparse.ArgumentParser:
    """What every benchmark of training steps is told, with these defaults."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vit_small_patch14_dinov2")
    parser.add_argument("--image-size", type=int, default=70)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compile", action="store_true", help="torch.compile, block by block")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--warm-up", type=int, default=warm_up)
    return parser


def main() -> None:
    parser = step_parser(__doc__, steps=40, warm_up=3)
    parser.add_argument("--prob", type=float, default=0.1)
    parser.add_argument("--attention", action="store_true", help="compare attention kernels instead")
    arguments = parser.parse_args()

    device = default_device()
    student, model, loss_of = set_up(arguments, arguments.image_size, arguments.batch_size, device)

    def crossing(model: nn.Module) -> Callable[[list[int]], Tensor]:
        return lambda row: loss_of(partial(model, cross_blocks=row))

    def with_kernel(fused: bool) -> Tensor:
        for block in student.blocks:
            block.attn.fused_attn = fused
        return loss_of(student)

    candidates: dict[str, Callable[[list[int]], Tensor]]
    if arguments.attention:
        candidates = {
            "fused attention": lambda row: with_kernel(True),
            "matrix products": lambda row: with_kernel(False),
        }
    else:
        candidates = {"plain": lambda row: loss_of(student), "StochCA": crossing(model)}
        if arguments.compile:
            compiled = {f"{name}, compiled": step for name, step in candidates.items()}
            models = [student, model.teacher]
            candidates = {name: eagerly(models, step) for name, step in candidates.items()} | compiled
        else:
            if model.teacher_precision is not None:
                candidates[FP32_TEACHER] = crossing(stochca.StochCA(student))
            candidates[NAIVE] = crossing(NaiveStochCA(student, copy.deepcopy(student)))
    drawn = draws(arguments.prob, model.num_blocks, arguments.steps, arguments.warm_up)
    with compiled_if_asked(arguments, model, crossing(model)):
        seconds = time_steps(candidates, list(student.parameters()), drawn, arguments.warm_up, device)

    where = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads"
    )
    print(
        f"{arguments.model}, {arguments.image_size} px, batch {arguments.batch_size}, {arguments.precision}, "
        f"p = {arguments.prob}, {arguments.steps} steps; "
        f"torch {torch.__version__}, {where}"
    )
    # Means over the same steps, because the draws make steps differ; medians would hide the deep ones.
    mean = {name: statistics.fmean(values) for name, values in seconds.items()}
    first = next(iter(mean))
    for name, value in mean.items():
        print(f"  {name:21} {1000 * value:8.1f} ms   {value / mean[first]:.3f} x {first}")
    if not arguments.attention:
        tokens = student.patch_embed.num_patches + student.num_prefix_tokens
        least = floor(drawn[arguments.warm_up :], model.num_blocks, tokens, student.embed_dim)
        print(f"  floor {'':29}   {least:.3f} x plain, by arithmetic")
        for name in ("StochCA", FP32_TEACHER):
            if name in mean and NAIVE in mean:
                print(f"  {f'naive / {name}':32}      {mean[NAIVE] / mean[name]:.3f}")


if __name__ == "__main__":
    main()
