"""Images and weights of the patch embedding with their channels last: what a training step costs then.

    python benchmarks/channels_last.py [--precision bf16] [--image-size 224 --batch-size 8]

The patch embedding is the only convolution of a vision transformer. Both orders take their steps in turn,
from the same weights on the same images; printed is also whether outputs and gradients are the same bits.
"""

import argparse
import copy
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import stochca  # noqa: F401  # isort: skip  (before timm, which it lets import torchvision)
import timm
import torch
from torch import Tensor
from torch.nn import functional

from stochca._typing import TimmModule
from stochca.compute.devices import default_device, device_name
from stochca.compute.precision import autocast, choose_attention_kernel


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def step(model: TimmModule, images: Tensor, labels: Tensor, precision: str) -> tuple[float, list[Tensor]]:
    """Seconds of a forward and backward pass, and its logits and gradients."""
    device = images.device
    model.zero_grad(set_to_none=True)
    synchronise(device)
    started = time.perf_counter()
    with autocast(precision, device):
        logits = model(images).float()
        loss = functional.cross_entropy(logits, labels)
    loss.backward()
    synchronise(device)
    seconds = time.perf_counter() - started
    return seconds, [logits.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vit_small_patch14_dinov2")
    parser.add_argument("--image-size", type=int, default=56)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()

    device, size = default_device(), arguments.image_size
    torch.manual_seed(0)
    first = timm.create_model(arguments.model, img_size=size, num_classes=100).to(device).train()
    choose_attention_kernel(first, arguments.precision, device)
    last = copy.deepcopy(first).to(memory_format=torch.channels_last)
    images = torch.randn(arguments.batch_size, 3, size, size, device=device)
    labels = torch.randint(0, 100, (arguments.batch_size,), device=device)
    orders = {
        "channels first": (first, images),
        "channels last": (last, images.contiguous(memory_format=torch.channels_last)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in orders}
    results: dict[str, list[Tensor]] = {}
    for i in range(arguments.steps + 3):
        for name, (model, batch) in list(orders.items())[:: 1 if i % 2 else -1]:
            taken, results[name] = step(model, batch, labels, arguments.precision)
            if i >= 3:
                seconds[name].append(taken)
    print(
        f"{arguments.model}, {size} px, batch {arguments.batch_size}, {arguments.precision}; "
        f"torch {torch.__version__}, {device_name(device)}, {torch.get_num_threads()} threads"
    )
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        print(
            f"  {name:15} {1000 * value:8.1f} ms   {value / medians['channels first']:.3f} x channels first"
        )
    same = all(torch.equal(*pair) for pair in zip(*results.values(), strict=True))
    print(f"  outputs and gradients are {'' if same else 'not '}the same bit for bit")


if __name__ == "__main__":
    main()
