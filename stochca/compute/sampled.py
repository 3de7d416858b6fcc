"""A few numbers of every parameter, by which a model is told from others."""

from collections.abc import Iterable

import torch
from torch import Tensor

SAMPLED = 4  # numbers of each parameter


@torch.no_grad()
def numbers_of(parameters: Iterable[Tensor]) -> Tensor:
    """A few numbers of each, in fp32 on the CPU; none where one has no values yet."""
    parameters = list(parameters)
    if any(parameter.is_meta for parameter in parameters):
        return torch.empty(0)
    flat = (parameter.flatten() for parameter in parameters)
    return torch.cat([values[:: len(values) // SAMPLED + 1].float() for values in flat]).cpu()


def are_of_one_model(first: Tensor, second: Tensor) -> bool:
    """Whether two samples are of the same weights, up to half precision; yes where one is empty."""
    if not first.numel() or not second.numel():
        return True
    first, second = first.cpu().float(), second.cpu().float()
    return first.shape == second.shape and torch.allclose(
        first, second, rtol=2**-7, atol=1e-6, equal_nan=True
    )
