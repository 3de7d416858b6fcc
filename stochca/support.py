"""Which models StochCA can wrap, and which can teach which."""

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from stochca._typing import TimmModule
from stochca.errors import UserError
from stochca.projections import attention_layers

SUPPORTED = (
    "plain vision transformers of timm (class VisionTransformer) whose attention has a fused `attn.qkv`: "
    "vit_*, deit_*, *_clip_*, *_siglip_*, *_dinov2, *_reg4_*"
)


def check_supported(model: TimmModule) -> None:
    """Raise `UserError` unless every block of `model` has keys and values that can be exchanged."""
    name = type(model).__name__
    if not isinstance(model, VisionTransformer):
        raise UserError(f"StochCA does not support {name}; supported are {SUPPORTED}")
    for i, block in enumerate(model.blocks):
        if not attention_layers(block):
            raise UserError(
                f"StochCA does not support {name} with {type(block).__name__}: block {i} has no attention "
                f"with a fused `attn.qkv`; supported are {SUPPORTED}"
            )
    if not isinstance(model.patch_drop, nn.Identity):
        raise UserError(
            "StochCA does not support patch_drop_rate above 0: student and teacher would see different "
            "patches; create the model with patch_drop_rate=0"
        )


def check_same_architecture(student: TimmModule, teacher: TimmModule) -> None:
    """Raise `UserError` naming the first difference, the heads excepted."""
    check_supported(teacher)
    for i, (block, other) in enumerate(zip(student.blocks, teacher.blocks, strict=False)):
        kinds = [type(part).__name__ for part in (block, other)]
        heads = [[layer.num_heads for layer in attention_layers(part)] for part in (block, other)]
        if kinds[0] != kinds[1] or heads[0] != heads[1]:
            raise UserError(
                f"the teacher differs from the student: block {i} is {kinds[1]} with {heads[1]} heads, "
                f"in the student {kinds[0]} with {heads[0]}; use the same architecture"
            )
    teachers = {name: tuple(value.shape) for name, value in teacher.blocks.state_dict().items()}
    for name, value in student.blocks.state_dict().items():
        found = teachers.pop(name, None)
        if found != tuple(value.shape):
            raise UserError(
                f"the teacher differs from the student: blocks.{name} has the shape {tuple(value.shape)} in "
                f"the student and {found or 'does not exist'} in the teacher; use the same architecture"
            )
    if teachers:
        raise UserError(f"the teacher differs from the student: only it has blocks.{next(iter(teachers))}")
    tokens = [model.patch_embed.num_patches + model.num_prefix_tokens for model in (student, teacher)]
    if tokens[0] != tokens[1]:
        raise UserError(
            f"the teacher differs from the student: it sees {tokens[1]} tokens, the student {tokens[0]}; "
            "create both with the same img_size and prefix tokens"
        )
