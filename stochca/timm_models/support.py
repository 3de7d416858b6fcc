"""Which models StochCA can wrap, and which can teach which."""

from torch import nn

from stochca._typing import TimmModule
from stochca.errors import UserError
from stochca.timm_models.families import SUPPORTED, blocks_of, family_of
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
            "patch_drop_rate above 0 is not supported: student and teacher would see different patches; "
            "create the model with patch_drop_rate=0"
        )


def check_same_architecture(student: TimmModule, teacher: TimmModule) -> None:
    """Raise `UserError` naming the first difference, the heads excepted."""
    check_supported(teacher)
    kinds = [type(model).__name__ for model in (student, teacher)]
    if kinds[0] != kinds[1]:
        raise UserError(
            f"the teacher differs from the student: it is a {kinds[1]}, the student a {kinds[0]}; "
            "use the same architecture"
        )
    for i, (block, other) in enumerate(zip(blocks_of(student), blocks_of(teacher), strict=False)):
        kinds = [type(part).__name__ for part in (block, other)]
        heads = [[layer.num_heads for layer in attention_layers(part)] for part in (block, other)]
        if kinds[0] != kinds[1] or heads[0] != heads[1]:
            raise UserError(
                f"the teacher differs from the student: block {i} is {kinds[1]} with {heads[1]} heads, "
                f"in the student {kinds[0]} with {heads[0]}; use the same architecture"
            )
    teachers = _shapes_in_blocks(teacher)
    for name, shape in _shapes_in_blocks(student).items():
        found = teachers.pop(name, None)
        if found != shape:
            raise UserError(
                f"the teacher differs from the student: {name} has the shape {shape} in "
                f"the student and {found or 'does not exist'} in the teacher; use the same architecture"
            )
    if teachers:
        raise UserError(f"the teacher differs from the student: only it has {next(iter(teachers))}")
    tokens = [_num_tokens(model) for model in (student, teacher)]
    if tokens[0] != tokens[1]:
        raise UserError(
            f"the teacher differs from the student: it sees {tokens[1]} tokens, the student {tokens[0]}; "
            "create both with the same img_size and prefix tokens"
        )


def _shapes_in_blocks(model: TimmModule) -> dict[str, tuple[int, ...]]:
    """Shapes of the blocks' parameters and buffers, which show the size of their windows."""
    prefixes = tuple(f"{name}." for name in family_of(model).block_names(model))
    return {
        name: tuple(tensor.shape)
        for tensors in (model.named_parameters(), model.named_buffers())
        for name, tensor in tensors
        if name.startswith(prefixes)
    }


def _num_tokens(model: TimmModule) -> int:
    """Tokens of the first block; 0 where all tokens are in windows, whose size is known from elsewhere."""
    patches = getattr(getattr(model, "patch_embed", None), "num_patches", 0)
    return patches + getattr(model, "num_prefix_tokens", 0)
