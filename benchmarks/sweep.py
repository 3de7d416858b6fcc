"""What StochCA costs beside plain fine-tuning and beside its floor, over probabilities and image sizes.

python -m benchmarks.sweep [--probs 0 0.1 1] [--image-sizes 70 224] [--precision bf16] [--compile] ...

Plain fine-tuning and every probability take their steps in turn, on the same images, as in step.py beside it,
which says what the floor is. The batch shrinks as images grow, so that a step sees about as many tokens.
"""

import argparse
from collections.abc import Callable

from torch import Tensor

from benchmarks.in_turn import machine, step_options
from benchmarks.measuring import print_head, print_row
from benchmarks.step import Setting, add_compile, floor


def measure(arguments: argparse.Namespace) -> None:
    """A row per probability: milliseconds of a step, relative to plain, and the floor of that."""
    setting = Setting(arguments)
    drawn = {prob: setting.draws(prob) for prob in arguments.probs}

    def crossing(prob: float) -> Callable[[int], Tensor]:
        return lambda i: setting.crossing(drawn[prob][i])

    candidates: dict[str, Callable[[int], Tensor]] = {"plain": lambda i: setting.loss(setting.student)}
    mean = setting.time_steps(candidates | {str(prob): crossing(prob) for prob in arguments.probs})
    for prob in arguments.probs:
        seconds, least = mean[str(prob)], floor(drawn[prob][arguments.warm_up :], setting.student)
        place = (str(arguments.image_size), str(arguments.batch_size), f"{prob:g}")
        print_row(*place, f"{1000 * seconds:.0f}", f"{seconds / mean['plain']:.3f}", f"{least:.3f}")


def main() -> None:
    parser = step_options(__doc__, steps=20, warm_up=2)
    add_compile(parser)
    parser.add_argument("--probs", type=float, nargs="+", default=[0, 0.05, 0.1, 0.3, 0.5, 1])
    parser.add_argument("--image-sizes", type=int, nargs="+", help="in place of --image-size")
    arguments = parser.parse_args()
    how = "compiled" if arguments.compile else "eager"
    print(f"{arguments.model}, {arguments.precision}, {how}, {arguments.steps} steps; {machine()}")
    print_head("pixels", "batch", "p", "ms", "× plain", "floor")
    for size in arguments.image_sizes or [arguments.image_size]:
        batch_size = max(1, round(arguments.batch_size * (arguments.image_size / size) ** 2))
        at_this_size = {**vars(arguments), "image_size": size, "batch_size": batch_size}
        measure(argparse.Namespace(**at_this_size))


if __name__ == "__main__":
    main()
