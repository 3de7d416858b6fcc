"""What fine-tuning has done to a model, block by block: features, weights, and where it looks."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from stochca._typing import TimmModule
from stochca.compute.modes import evaluating
from stochca.compute.precision import attention_kernel
from stochca.errors import UserError
from stochca.timm_models.families import blocks_of, positions_of
from stochca.timm_models.recording import recorded


def has_class_token(model: TimmModule) -> bool:
    """Whether the first token is a class token; registers may come first where there is none."""
    return getattr(model, "cls_token", None) is not None


@torch.no_grad()
def block_features(model: TimmModule, images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Of each block's output the class token and the mean of the patch tokens, each (B, D) in fp32.

    Models without a class token give the mean twice. Every part's mode is put back afterwards.

    Args:
        images: (B, 3, height, width), normalised.
    """
    prefix = getattr(model, "num_prefix_tokens", 0)
    with evaluating(model), recorded(model) as records:
        model.forward_features(images)
    outputs = [output.flatten(1, -2) for output in records.blocks]  # as tokens
    means = [tokens[:, prefix:].mean(dim=1) for tokens in outputs]
    firsts = [tokens[:, 0] for tokens in outputs] if has_class_token(model) else means
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


@torch.no_grad()
def weight_distances(model: TimmModule, start: TimmModule) -> list[float]:
    """Of each block, how far its weights are from those of `start`, as a share of the length of those."""
    return [
        (_joined(block) - _joined(other)).norm().div(_joined(other).norm()).item()
        for block, other in zip(blocks_of(model), blocks_of(start), strict=True)
    ]


@torch.no_grad()
def attention_maps(model: TimmModule, images: Tensor) -> list[Tensor]:
    """Of each block where it looks: attention per patch (B, rows, columns), the mean over the heads.

    What the class token pays to each patch; without a class token what all patches pay, on average.
    Attention to other tokens than patches is left out, so that the sum is at most 1. Every part's
    mode is put back afterwards.

    Args:
        images: (B, 3, height, width), normalised.

    Raises:
        UserError: the model has no attention from every token to every patch.
    """
    positions_of(model, "a picture of attention")  # refuses windows and maps
    rows, columns = model.patch_embed.grid_size
    prefix = model.num_prefix_tokens
    tokens = prefix + rows * columns
    with evaluating(model), attention_kernel(model, fused=True), _AttentionWeights() as recorder:
        model.forward_features(images)
    found = [weights for weights in recorder.found if weights.shape[-2:] == (tokens, tokens)]
    if len(found) != len(model.blocks):
        raise UserError(
            f"{type(model).__name__} has no attention maps: {len(found)} of its {len(model.blocks)} blocks "
            "attend from every token to every patch, once"
        )
    paying = slice(1) if has_class_token(model) else slice(prefix, None)
    paid = [weights[:, paying, prefix:].mean(dim=1) for weights in found]
    return [row.unflatten(1, (rows, columns)) for row in paid]


class _AttentionWeights(TorchFunctionMode):
    """Inside, what fused attention never shows: softmax(q kᵀ · scale + mask) (B, N, N), mean over the heads.

    Taken from the call itself, so that it holds however a model makes its queries and keys.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if function is functional.scaled_dot_product_attention:
            query, key, value, *others = args
            # Also with values of the identity, attention gives its own weights.
            identity = torch.eye(key.shape[-2], dtype=value.dtype, device=value.device)
            identity = identity.expand(*value.shape[:-2], -1, -1)
            self.found.append(function(query, key, identity, *others, **kwargs).float().mean(dim=1))
        return function(*args, **kwargs)


def _joined(module: nn.Module) -> Tensor:
    return torch.cat([parameter.double().flatten() for parameter in module.parameters()])
