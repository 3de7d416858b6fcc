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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import stochca  # isort: skip  (before torch and timm, see benchmarks/in_turn.py)
import torch
from torch import Tensor, nn

from benchmarks.in_turn import DEVICE, described, in_turn, start, step_options
from stochca._typing import TimmModule
from stochca.compute.compilation import compiled_blocks, uncompiled
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


class Setting:
    """A student, StochCA around it as `fit` has it, the loss of either on a batch, and the optimiser."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.student, self.images, self.labels = start(arguments, classes=100)
        model, _ = compose(METHOD, self.student, precision=arguments.precision)
        assert isinstance(model, stochca.StochCA)
        self.model, self.arguments = model, arguments
        choose_attention_kernel(self.student, arguments.precision, DEVICE)
        settled_teacher(model, arguments.precision, DEVICE)
        self.optimizer = torch.optim.AdamW(self.student.parameters(), lr=1e-6, fused=True)

    def loss(self, forward: Callable[[Tensor], Tensor]) -> Tensor:
        with autocast(self.arguments.precision, DEVICE):
            return nn.functional.cross_entropy(forward(self.images).float(), self.labels)

    def crossing(self, row: list[int], model: nn.Module | None = None) -> Tensor:
        """The loss where these blocks cross-attend."""
        return self.loss(partial(model or self.model, cross_blocks=row))

    def draws(self, prob: float) -> list[list[int]]:
        return draws(prob, self.model.num_blocks, self.arguments.steps, self.arguments.warm_up)

    def time_steps(self, losses: dict[str, Callable[[int], Tensor]]) -> dict[str, float]:
        """Mean seconds of an optimiser step of each candidate, which gets the step's number.

        Means over the same steps, because the draws make steps differ; medians would hide the deep ones.
        """

        def step(loss: Callable[[int], Tensor], i: int) -> None:
            loss(i).backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

        candidates = {name: partial(step, loss) for name, loss in losses.items()}
        with self._compiled_if_asked():
            seconds = in_turn(candidates, self.arguments.steps, self.arguments.warm_up)
        return {name: statistics.fmean(values) for name, values in seconds.items()}

    @contextmanager
    def _compiled_if_asked(self) -> Iterator[None]:
        """With --compile, every variant of a block has been met before anything is timed."""
        if not self.arguments.compile:
            yield
            return
        last = self.model.num_blocks - 1
        with compiled_blocks(self.student, self.model.teacher):
            for row in ([], [0, last], [0, 1, last]):
                self.crossing(row).backward()
            yield

    def eagerly(self, loss: Callable[[int], Tensor], i: int) -> Tensor:
        """`loss` as it is without compiled blocks."""
        with ExitStack() as stack:
            for model in (self.student, self.model.teacher):
                for block in blocks_of(model):
                    stack.enter_context(uncompiled(block))
            return loss(i)

    def with_kernel(self, fused: bool, i: int) -> Tensor:
        for block in self.student.blocks:
            block.attn.fused_attn = fused
        return self.loss(self.student)


def add_compile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--compile", action="store_true", help="torch.compile, block by block")


def main() -> None:
    parser = step_options(__doc__, steps=40, warm_up=3)
    add_compile(parser)
    parser.add_argument("--prob", type=float, default=0.1)
    parser.add_argument("--attention", action="store_true", help="compare attention kernels instead")
    arguments = parser.parse_args()

    setting = Setting(arguments)
    student, model, drawn = setting.student, setting.model, setting.draws(arguments.prob)
    candidates: dict[str, Callable[[int], Tensor]]
    if arguments.attention:
        candidates = {
            "fused attention": partial(setting.with_kernel, True),
            "matrix products": partial(setting.with_kernel, False),
        }
    else:
        candidates = {
            "plain": lambda i: setting.loss(student),
            "StochCA": lambda i: setting.crossing(drawn[i]),
        }
        if arguments.compile:
            compiled = {f"{name}, compiled": loss for name, loss in candidates.items()}
            candidates = {
                name: partial(setting.eagerly, loss) for name, loss in candidates.items()
            } | compiled
        else:
            if model.teacher_precision is not None:
                fp32_teacher = stochca.StochCA(student)
                candidates[FP32_TEACHER] = lambda i: setting.crossing(drawn[i], fp32_teacher)
            naive = NaiveStochCA(student, copy.deepcopy(student))
            candidates[NAIVE] = lambda i: setting.crossing(drawn[i], naive)
    mean = setting.time_steps(candidates)

    print(described(arguments, f"p = {arguments.prob}", f"{arguments.steps} steps"))
    first = next(iter(mean))
    for name, value in mean.items():
        print(f"  {name:21} {1000 * value:8.1f} ms   {value / mean[first]:.3f} x {first}")
    if not arguments.attention:
        least = floor(drawn[arguments.warm_up :], student)
        print(f"  floor {'':29}   {least:.3f} x plain, by arithmetic")
        for name in ("StochCA", FP32_TEACHER):
            if name in mean and NAIVE in mean:
                print(f"  {f'naive / {name}':32}      {mean[NAIVE] / mean[name]:.3f}")


if __name__ == "__main__":
    main()
