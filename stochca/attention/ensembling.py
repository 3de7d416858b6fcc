"""The mean of several stochastic forward passes: what StochCA's random blocks agree on."""

import torch
from torch import Tensor

from stochca.attention.stochca import StochCA
from stochca.errors import UserError


@torch.no_grad()
def averaged_predictions(
    model: StochCA, images: Tensor, passes: int, generator: torch.Generator | None = None
) -> Tensor:
    """Logits (B, classes): the mean over `passes` forwards, each with blocks drawn as in training.

    Dropout and stochastic depth stay off; the mode is put back afterwards. It takes the teacher, so it is
    for a `StochCA` at hand: a saved model is the student alone, whose one forward pass is `model.eval()`.

    Args:
        images: (B, 3, height, width), normalised.
        passes: how many; the cost is as many forwards, and the teacher's.
        generator: CPU generator of the draws; None takes the model's own, whose training draws then differ.

    Raises:
        UserError: there is no pass.
    """
    if passes < 1:
        raise UserError(f"passes must be 1 or more, found {passes}")
    was_training = model.training
    model.eval()
    total = sum(model.attend(images, model.draw(len(images), generator)).float() for _ in range(passes))
    model.train(was_training)
    assert isinstance(total, Tensor)
    return total / passes
