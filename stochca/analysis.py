"""What fine-tuning has done to a model: how alike two models' features are, block by block."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.families import blocks_of, family_of


@torch.no_grad()
def block_features(model: TimmModule, images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Of each block's output the class token and the mean of the patch tokens, each (B, D) in fp32.

    Models without a class token give the mean twice. The model's mode is put back afterwards.

    Args:
        images: (B, 3, height, width), normalised.
    """
    prefix = getattr(model, "num_prefix_tokens", 0)
    channels_first = family_of(model).channels_first
    was_training = model.training
    model.eval()
    with _outputs(blocks_of(model)) as outputs:
        model.forward_features(images)
    model.train(was_training)
    outputs = [_as_tokens(output, channels_first) for output in outputs]
    means = [tokens[:, prefix:].float().mean(dim=1) for tokens in outputs]
    firsts = [tokens[:, 0].float() for tokens in outputs] if prefix else means
    return list(zip(firsts, means, strict=True))


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear centred kernel alignment of two sets of features of the same images; from 0 to 1.

    1 means the same up to rotation and scale (Kornblith et al., ICML 2019, equation 3 with linear kernels).

    Args:
        first: (N, D) features of N images.
        second: (N, E) features of the same images.
    """
    first, second = (x.double() - x.double().mean(dim=0) for x in (first, second))
    shared = (first.T @ second).square().sum()
    own = (first.T @ first).norm() * (second.T @ second).norm()
    return float(shared / own)


def _as_tokens(output: Tensor, channels_first: bool) -> Tensor:
    """(B, N, D) of what a block gives, whatever the layout."""
    if output.dim() == 3:
        return output
    return output.flatten(2).transpose(1, 2) if channels_first else output.flatten(1, 2)


@contextmanager
def _outputs(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Collects what the modules give, in the order in which they run."""
    found: list[Tensor] = []
    hooks = [module.register_forward_hook(lambda _, __, output: found.append(output)) for module in modules]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
