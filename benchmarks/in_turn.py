"""What benchmarks of training steps share: a model, and candidates that take their steps in turn.

In turn, and in one process, because the speed of a machine drifts: ratios of such numbers hold, the numbers
themselves do not.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Mapping

import stochca  # noqa: F401  # isort: skip  (before timm, which it lets import torchvision)
import timm
import torch

from benchmarks.measuring import options
from stochca._typing import TimmModule
from stochca.compute.devices import default_device, device_name

DEVICE = default_device()


def step_options(
    description: str | None, *, steps: int, warm_up: int, image_size: int = 70
) -> argparse.ArgumentParser:
    """What every benchmark of training steps is told, with these defaults."""
    parser = options(description)
    parser.add_argument("--model", default="vit_small_patch14_dinov2")
    parser.add_argument("--image-size", type=int, default=image_size)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--warm-up", type=int, default=warm_up, help="steps before them, not measured")
    return parser


def start(arguments: argparse.Namespace, classes: int) -> tuple[TimmModule, torch.Tensor, torch.Tensor]:
    """A model with fresh weights, and a batch: images (B, 3, side, side) and labels (B,)."""
    torch.manual_seed(0)
    size, batch_size = arguments.image_size, arguments.batch_size
    model = timm.create_model(arguments.model, img_size=size, num_classes=classes).to(DEVICE).train()
    images = torch.randn(batch_size, 3, size, size, device=DEVICE)
    return model, images, torch.randint(0, classes, (batch_size,), device=DEVICE)


def in_turn(
    candidates: Mapping[str, Callable[[int], object]], rounds: int, warm_up: int
) -> dict[str, list[float]]:
    """Seconds of each candidate in each round; a candidate gets the round's number.

    The first `warm_up` rounds are not among them. Who goes first is drawn: a candidate pays for the memory
    that the one before it left behind.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    order = random.Random(0)
    for i in range(warm_up + rounds):
        for name in order.sample(list(candidates), len(candidates)):
            synchronise()
            started = time.perf_counter()
            candidates[name](i)
            synchronise()
            if i >= warm_up:
                seconds[name].append(time.perf_counter() - started)
        print(f"\rround {i + 1} of {warm_up + rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return seconds


def synchronise() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize(DEVICE)


def described(arguments: argparse.Namespace, *more: str) -> str:
    """What was measured, and where."""
    what = (
        arguments.model,
        f"{arguments.image_size} px",
        f"batch {arguments.batch_size}",
        arguments.precision,
    )
    return f"{', '.join((*what, *more))}; {machine()}"


def machine() -> str:
    return f"torch {torch.__version__}, {device_name(DEVICE)}, {torch.get_num_threads()} threads"
