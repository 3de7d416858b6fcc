"""timm's families of transformers: which models belong to one, and where their blocks are.

A family that is listed here works with StochCA if its attention layers do (`projections.py`). Its blocks
are numbered in the order in which they run, across the stages of a hierarchical model.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from timm.models import (
    beit,
    eva,
    maxxvit,
    swin_transformer,
    swin_transformer_v2,
    swin_transformer_v2_cr,
    vision_transformer,
    vision_transformer_relpos,
    vision_transformer_sam,
)
from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.errors import UserError
from stochca.timm_models.positions import Positions, RelativePositions, no_positions, rotary_positions

StateDict = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """Models of one timm class.

    Attributes:
        model: timm's class; its subclasses belong to the family too.
        names: timm's names of the models, with wildcards.
        blocks: regular expression of the names of the modules that are blocks.
        convert: brings a published state dict into timm's layout for a given model, resampled to its size.
        no_blocks: classes of modules that stand among the blocks, but have no attention.
        channels_first: blocks give (B, D, height, width), not (B, N, D) or (B, height, width, D).
        embeds_channels_first: the patch embedding, or the stem of a hybrid, does.
        norm_argument: timm's argument that puts the last norm behind the pooling; None: there is no choice.
        positions: how attention leaves further tokens without a position; None where blocks don't hand on
            one sequence of tokens (B, N, D), all of which attend to each other.
    """

    model: type[nn.Module]
    names: str
    blocks: str
    convert: Callable[[StateDict, TimmModule], StateDict]
    no_blocks: tuple[type[nn.Module], ...] = ()
    channels_first: bool = False
    embeds_channels_first: bool = False
    norm_argument: str | None = None
    positions: Positions | None = None


# By name, because models that hold on to positions can be pickled.
def _bias_of_beit(attention: TimmModule) -> Tensor:
    return attention._get_rel_pos_bias()


def _bias_of_relpos(attention: TimmModule) -> Tensor:
    return attention.rel_pos.get_bias()


FAMILIES = (
    Family(
        vision_transformer.VisionTransformer,
        "vit_*, deit_*, deit3_*, *_clip_*, *_siglip_*, *_dinov2, *_reg4_*, flexivit_*",
        r"blocks\.\d+",
        partial(vision_transformer.checkpoint_filter_fn, adapt_layer_scale=True),
        norm_argument="fc_norm",
        positions=no_positions,
    ),
    Family(
        eva.Eva,
        "eva_*, eva02_*, *_dinov3*, vit_pe_*, *_rope_*, *_sapiens2",
        r"blocks\.\d+",
        eva.checkpoint_filter_fn,
        norm_argument="use_fc_norm",
        positions=rotary_positions,
    ),
    Family(
        beit.Beit,
        "beit_*, beitv2_*",
        r"blocks\.\d+",
        beit.checkpoint_filter_fn,
        norm_argument="use_fc_norm",
        positions=RelativePositions(
            "relative_position_bias_table",
            own_bias=_bias_of_beit,
            shared="shared_rel_pos_bias",
        ),
    ),
    Family(
        vision_transformer_relpos.VisionTransformerRelPos,
        "vit_relpos_*, vit_srelpos_*",
        r"blocks\.\d+",
        vision_transformer_relpos.checkpoint_filter_fn,
        norm_argument="fc_norm",
        positions=RelativePositions("rel_pos", own_bias=_bias_of_relpos, shared="shared_rel_pos"),
    ),
    Family(
        vision_transformer_sam.VisionTransformerSAM,
        "samvit_*",
        r"blocks\.\d+",
        vision_transformer_sam.checkpoint_filter_fn,
    ),
    Family(
        swin_transformer.SwinTransformer,
        "swin_*",
        r"layers\.\d+\.blocks\.\d+",
        swin_transformer.checkpoint_filter_fn,
    ),
    Family(
        swin_transformer_v2.SwinTransformerV2,
        "swinv2_*",
        r"layers\.\d+\.blocks\.\d+",
        swin_transformer_v2.checkpoint_filter_fn,
    ),
    Family(
        swin_transformer_v2_cr.SwinTransformerV2Cr,
        "swinv2_cr_*",
        r"stages\.\d+\.blocks\.\d+",
        swin_transformer_v2_cr.checkpoint_filter_fn,
        embeds_channels_first=True,
    ),
    Family(
        maxxvit.MaxxVit,
        "maxvit_*, maxxvit_*, coatnet_*",
        r"stages\.\d+\.blocks\.\d+",
        maxxvit.checkpoint_filter_fn,
        no_blocks=(maxxvit.MbConvBlock, maxxvit.ConvNeXtBlock),
        channels_first=True,
        embeds_channels_first=True,
    ),
)


def names_of(families: Iterable[Family]) -> str:
    """As sentences list them."""
    return "timm's " + "; ".join(f"{family.model.__name__} ({family.names})" for family in families)


SUPPORTED = names_of(FAMILIES)


def family_of(model: nn.Module) -> Family:
    """The family that `model` belongs to; raises `UserError` where there is none."""
    for family in FAMILIES:
        if isinstance(model, family.model):
            return family
    _refuse_what_is_around_a_model(model)
    kind, package = type(model).__name__, type(model).__module__.split(".")[0]
    if package == "timm":
        raise UserError(f"{kind} is not supported; supported are {SUPPORTED}")
    raise UserError(
        f"{kind} of {package} is not supported; create the model with timm.create_model; supported are "
        f"{SUPPORTED}"
    )


def _refuse_what_is_around_a_model(model: nn.Module) -> None:
    """Raise `UserError` where a part of `model` belongs to a family; the sentence says to pass that.

    So it is of what `torch.compile`, PEFT, data-parallel training, this library and others put around one.
    """
    for name, part in model.named_modules() if isinstance(model, nn.Module) else ():
        if isinstance(part, tuple(family.model for family in FAMILIES)):
            plain = all(step.isidentifier() for step in name.split("."))
            place = f"model.{name}" if plain else f"model.get_submodule({name!r})"
            raise UserError(
                f"{type(model).__name__} is not supported, but the {type(part).__name__} in it is; "
                f"pass {place}"
            )


def block_names(model: nn.Module) -> list[str]:
    """Names of a model's blocks, in the order in which they run; raises `UserError` as `family_of`."""
    family = family_of(model)
    return [
        name
        for name, module in model.named_modules()
        if re.fullmatch(family.blocks, name) and type(module) not in family.no_blocks
    ]


def blocks_of(model: nn.Module) -> list[TimmModule]:
    """A model's blocks, in the order in which they run; raises `UserError` as `family_of`."""
    return [model.get_submodule(name) for name in block_names(model)]


def head_modules(model: TimmModule) -> list[TimmModule]:
    """The classifier; distilled models have two."""
    heads = model.get_classifier()
    return list(heads) if isinstance(heads, tuple) else [heads]


def head_parameters(model: TimmModule) -> set[int]:
    """The ids of the classifier's parameters."""
    return {id(parameter) for module in head_modules(model) for parameter in module.parameters()}


def positions_of(model: nn.Module, method: str) -> Positions:
    """How a model's attention leaves further tokens without a position; `method` asks for it.

    Raises:
        UserError: the model's blocks don't hand on one sequence of tokens, all of which attend to each other.
    """
    for family in FAMILIES:
        if isinstance(model, family.model) and family.positions is not None:
            return family.positions
    if not isinstance(model, tuple(family.model for family in FAMILIES)):
        _refuse_what_is_around_a_model(model)
    raise UserError(
        f"{method} does not support {type(model).__name__}: its blocks don't hand on one sequence of tokens "
        f"that all attend to each other; supported are {names_of(f for f in FAMILIES if f.positions)}"
    )
