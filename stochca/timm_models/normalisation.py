"""A model that takes images normalised for another one."""

import warnings
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
    say_normalisation(model, *given)


def say_normalisation(model: TimmModule, mean: Sequence[float], std: Sequence[float]) -> None:
    """Note in `model`, where timm does, how its images are normalised."""
    said = getattr(model, "pretrained_cfg", None) or {}
    model.pretrained_cfg = {**said, "mean": tuple(mean), "std": tuple(std)}


def check_normalisation(student: TimmModule, teacher: TimmModule) -> None:
    """Warn where they say that their images are normalised in different ways."""
    own, others = _normalisation(student), _normalisation(teacher)
    if own and others and own != others:
        warnings.warn(
            f"the teacher was trained with images normalised by mean and standard deviation {others}, but "
            f"sees the student's, normalised by {own}; make up for it with "
            f"stochca.timm_models.normalisation.renormalise(teacher, {others}, {own})",
            stacklevel=3,
        )


def other_normalisation(model: TimmModule, mean: Sequence[float], std: Sequence[float]) -> list[str]:
    """What a user should know where images are normalised otherwise than the model says; else nothing."""
    own, given = _normalisation(model), (tuple(mean), tuple(std))
    if len(own) < len(given) or own == given:
        return []
    return [
        f"Images are normalised by mean and standard deviation {given}, but the student was pretrained with "
        f"{own}; Preprocessing.of_model(student) takes its own."
    ]


def _normalisation(model: TimmModule) -> tuple[tuple[float, ...], ...]:
    """Mean and standard deviation per channel; empty where the model does not say."""
    said = getattr(model, "pretrained_cfg", None) or {}
    return tuple(tuple(said[name]) for name in ("mean", "std") if name in said)
