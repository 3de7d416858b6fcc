"""What happens where gradients are not finite: the step is skipped, and too many in a row end training."""

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from stochca.errors import UserError

IN_A_ROW = 5  # skipped steps that end training
IN_A_ROW_FP16 = 30  # the scale of fp16's losses is found by skipping steps
SHOWN = 8  # images that the sentence names


class Divergence:
    """Counts the steps that must not be taken.

    Args:
        images_of: the images of a step, by name, for the sentence that ends training.
        fp16: losses are scaled, and more steps may be skipped in a row before training ends.
        skipped: how many there have been before.
    """

    def __init__(
        self, images_of: Callable[[int], Sequence[str]], *, fp16: bool = False, skipped: int = 0
    ) -> None:
        self.images_of, self.limit = images_of, IN_A_ROW_FP16 if fp16 else IN_A_ROW
        self.skipped = skipped
        self.in_a_row = 0

    @property
    def going_on(self) -> bool:
        """Whether the last step was skipped: what is there now should not take a good checkpoint's place."""
        return self.in_a_row > 0

    def skips(self, gradient_norm: Tensor, step: int) -> bool:
        """Whether the step has to be left out.

        Raises:
            UserError: it is the last of too many in a row.
        """
        if math.isfinite(gradient_norm.item()):
            self.in_a_row = 0
            return False
        self.skipped += 1
        self.in_a_row += 1
        if self.in_a_row < self.limit:
            return True
        images = self.images_of(step)
        more = f" and {len(images) - SHOWN} more" if len(images) > SHOWN else ""
        raise UserError(
            f"training diverged: the gradients of {self.limit} steps in a row, {step - self.limit + 1} to "
            f"{step}, were not finite; lower training.lr, or set training.clip_grad. The last step saw "
            f"{', '.join(images[:SHOWN])}{more}"
        )

    @property
    def notes(self) -> list[str]:
        """What a person should know at the end."""
        if not self.skipped:
            return []
        steps = "step was" if self.skipped == 1 else "steps were"
        return [f"{self.skipped} {steps} skipped, because gradients were not finite."]
