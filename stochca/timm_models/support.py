"""Which models StochCA can wrap, and which can teach which."""

from torch import nn

from stochca._typing import TimmModule
from stochca.errors import UserError
from stochca.timm_models.families import SUPPORTED, block_names, blocks_of, family_of
from stochca.timm_models.projections import attention_layers


def check_supported(model: TimmModule) -> None:
    """Raise `UserError` unless every block of `model` has keys and values that can be exchanged."""
    family_of(model)
    name = type(model).__name__
    for i, block in enumerate(blocks_of(model)):
        if not attention_layers(block):
            raise UserError(
                f"{name} with {type(block).__name__} is not supported: block {i} has no attention layer "
                f"whose keys and values can be exchanged; supported are {SUPPORTED}"
            )
    if not isinstance(getattr(model, "patch_drop", None), nn.Identity | None):
        raise UserError(
            "patch_drop_rate above 0 is not supported: two passes over an image would see different patches; "
            "create the model with patch_drop_rate=0"
        )


def check_uncompiled(model: TimmModule) -> None:
    """Raise `UserError` where something of `model` is compiled: exchanging parts would compile it again."""
    for module in model.modules():
        if module._compiled_call_impl is not None or "_orig_mod" in module._modules:
            raise UserError(
                f"{type(model).__name__} is compiled, or a part of it is, and would compile again for every "
                "draw of blocks; pass it uncompiled, and train within "
                "stochca.compute.compilation.compiled_blocks(model.student, model.teacher)"
            )


def check_same_architecture(student: TimmModule, teacher: TimmModule) -> None:
    """Raise `UserError` naming the first difference, the heads excepted."""
    check_supported(teacher)
    own, others = _described(student), _described(teacher)
    for name in own | others:
        found, wanted = others.get(name, "missing"), own.get(name, "missing")
        if found != wanted:
            raise UserError(
                f"the teacher differs from the student: {name} is {found} in the teacher, {wanted} in the "
                "student; create both from the same architecture, with the same img_size and prefix tokens"
            )


def _described(model: TimmModule) -> dict[str, str]:
    """All that keys and values depend on, by what a sentence calls it."""
    kinds = {}
    for i, block in enumerate(blocks_of(model)):
        heads = [layer.num_heads for layer in attention_layers(block)]
        kinds[f"block {i}"] = f"{type(block).__name__} with {heads} heads"
    prefixes = tuple(f"{name}." for name in block_names(model))
    shapes = {
        f"the shape of {name}": str(tuple(tensor.shape))
        for tensors in (model.named_parameters(), model.named_buffers())  # which show the size of windows
        for name, tensor in tensors
        if name.startswith(prefixes)
    }
    # Of the first block; nothing but the prefix where all tokens are in windows.
    patches = getattr(getattr(model, "patch_embed", None), "num_patches", 0)
    tokens = patches + getattr(model, "num_prefix_tokens", 0)
    return {"the model": type(model).__name__, **kinds, **shapes, "the number of tokens": str(tokens)}
