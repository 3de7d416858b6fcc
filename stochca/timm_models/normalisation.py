"""A model that takes images normalised for another one."""

from collections.abc import Sequence

import torch
from torch import nn

from stochca._typing import TimmModule
from stochca.errors import UserError


@torch.no_grad()
def renormalise(
    model: TimmModule,
    own: tuple[Sequence[float], Sequence[float]],
    given: tuple[Sequence[float], Sequence[float]],
) -> None:
    """Change the patch embedding so that images normalised as `given` look to the model like its `own`.

    Args:
        own: mean and standard deviation per channel that the model was trained with.
        given: those that its images will be normalised with.

    Raises:
        UserError: they differ, and the model does not begin with one convolution without padding.
    """
    own_mean, own_std, mean, std = (torch.tensor(x, dtype=torch.float64) for x in (*own, *given))
    if own_mean.equal(mean) and own_std.equal(std):
        return
    projection = getattr(getattr(model, "patch_embed", None), "proj", None)
    if not isinstance(projection, nn.Conv2d) or projection.padding != (0, 0):
        raise UserError(
            f"{type(model).__name__} was trained with images normalised in another way (mean {list(own[0])}, "
            f"standard deviation {list(own[1])}), which only models that begin with one convolution of "
            "patches can be adapted to; choose one with the same normalisation"
        )
    # own input = (image - own_mean) / own_std = given input * scale + shift
    scale, shift = std / own_std, (mean - own_mean) / own_std
    weight = projection.weight.double().cpu()
    bias = torch.zeros(len(weight)) if projection.bias is None else projection.bias.double().cpu()
    bias = bias + (weight * shift[:, None, None]).sum(dim=(1, 2, 3))
    weight = weight * scale[:, None, None]
    projection.weight.copy_(weight)
    projection.bias = nn.Parameter(bias.to(projection.weight))
