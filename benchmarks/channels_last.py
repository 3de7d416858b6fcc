"""Images and weights of the patch embedding with their channels last: what a training step costs then.

    python benchmarks/channels_last.py [--precision bf16] [--image-size 224 --batch-size 8]

The patch embedding is the only convolution of a vision transformer. Both orders take their steps in turn,
from the same weights on the same images; printed is also whether outputs and gradients are the same bits.
"""

import copy
import statistics
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import stochca  # noqa: F401  # isort: skip  (before torch and timm, see benchmarks/in_turn.py)
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.in_turn import DEVICE, described, in_turn, start, step_options
from stochca._typing import TimmModule
from stochca.compute.precision import autocast, choose_attention_kernel


def main() -> None:
    arguments = step_options(__doc__, steps=30, warm_up=3, image_size=56).parse_args()
    first, images, labels = start(arguments, classes=100)
    choose_attention_kernel(first, arguments.precision, DEVICE)
    last = copy.deepcopy(first).to(memory_format=torch.channels_last)
    results: dict[str, list[Tensor]] = {}

    def step(name: str, model: TimmModule, images: Tensor, i: int) -> None:
        model.zero_grad(set_to_none=True)
        with autocast(arguments.precision, DEVICE):
            logits = model(images).float()
            loss = functional.cross_entropy(logits, labels)
        loss.backward()
        results[name] = [logits, *(p.grad for p in model.parameters() if p.grad is not None)]

    images_last = images.contiguous(memory_format=torch.channels_last)
    orders = {
        "channels first": partial(step, "channels first", first, images),
        "channels last": partial(step, "channels last", last, images_last),
    }
    seconds = in_turn(orders, arguments.steps, arguments.warm_up)
    print(described(arguments))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        print(
            f"  {name:15} {1000 * value:8.1f} ms   {value / medians['channels first']:.3f} x channels first"
        )
    same = all(torch.equal(*pair) for pair in zip(*results.values(), strict=True))
    print(f"  outputs and gradients are {'' if same else 'not '}the same bit for bit")


if __name__ == "__main__":
    main()
