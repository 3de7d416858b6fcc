"""What fine-tuning has done to a model: how alike two models' features are, block by block."""

import torch
from torch import Tensor

from stochca._typing import TimmModule
from stochca.recording import recorded


@torch.no_grad()
def block_features(model: TimmModule, images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Of each block's output the class token and the mean of the patch tokens, each (B, D) in fp32.

    Models without a class token give the mean twice. The model's mode is put back afterwards.

    Args:
        images: (B, 3, height, width), normalised.
    """
    prefix = model.num_prefix_tokens
    was_training = model.training
    model.eval()
    with recorded(model) as records:
        model.forward_features(images)
    model.train(was_training)
    means = [tokens[:, prefix:].mean(dim=1) for tokens in records.blocks]
    firsts = [tokens[:, 0] for tokens in records.blocks] if prefix else means
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
