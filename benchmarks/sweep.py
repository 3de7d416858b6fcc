"""What StochCA costs beside plain fine-tuning and beside its floor, over probabilities and image sizes.

python -m benchmarks.sweep [--probs 0 0.1 1] [--image-sizes 70 224] [--precision bf16] [--compile] ...

Plain fine-tuning and every probability take their steps in turn, on the same images, as in step.py beside it,
which says what the floor is. The batch shrinks as images grow, so that a step sees about as many tokens.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.step import compiled_if_asked, draws, floor, set_up, step_parser, time_steps
from stochca.compute.devices import default_device, device_name


def measure(arguments: argparse.Namespace, size: int, batch_size: int) -> list[tuple[float, float, float]]:
    """Per probability: milliseconds of a step, relative to plain, and the floor of that."""
    device = default_device()
    probs, warm_up = arguments.probs, arguments.warm_up
    student, model, loss_of = set_up(arguments, size, batch_size, device)
    drawn = {prob: draws(prob, model.num_blocks, arguments.steps, warm_up) for prob in probs}

    def cross(prob: float, row: list[int]) -> Tensor:
        return loss_of(partial(model, cross_blocks=drawn[prob][row[0]]))

    candidates: dict[str, Callable[[list[int]], Tensor]] = {"plain": lambda row: loss_of(student)}
    candidates |= {str(prob): partial(cross, prob) for prob in probs}
    numbered = [[step] for step in range(arguments.steps + warm_up)]  # each candidate looks its own draws up
    with compiled_if_asked(arguments, model, lambda row: loss_of(partial(model, cross_blocks=row))):
        seconds = time_steps(candidates, list(student.parameters()), numbered, warm_up, device)
    plain = statistics.fmean(seconds["plain"])
    tokens = student.patch_embed.num_patches + student.num_prefix_tokens
    return [
        (
            1000 * statistics.fmean(seconds[str(prob)]),
            statistics.fmean(seconds[str(prob)]) / plain,
            floor(drawn[prob][warm_up:], model.num_blocks, tokens, student.embed_dim),
        )
        for prob in probs
    ]


def main() -> None:
    parser = step_parser(__doc__, steps=20, warm_up=2)
    parser.add_argument("--probs", type=float, nargs="+", default=[0, 0.05, 0.1, 0.3, 0.5, 1])
    parser.add_argument("--image-sizes", type=int, nargs="+", help="in place of --image-size")
    arguments = parser.parse_args()
    sizes = arguments.image_sizes or [arguments.image_size]
    print(
        f"{arguments.model}, {arguments.precision}, "
        f"{'compiled' if arguments.compile else 'eager'}, {arguments.steps} steps; "
        f"torch {torch.__version__}, {device_name(default_device())}, {torch.get_num_threads()} threads"
    )
    print("| pixels | batch | p | ms | × plain | floor |")
    print("| --: | --: | --: | --: | --: | --: |")
    for size in sizes:
        batch_size = max(1, round(arguments.batch_size * (arguments.image_size / size) ** 2))
        found = measure(arguments, size, batch_size)
        for prob, (milliseconds, ratio, least) in zip(arguments.probs, found, strict=True):
            print(
                f"| {size} | {batch_size} | {prob:g} | {milliseconds:.0f} | {ratio:.3f} | {least:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
