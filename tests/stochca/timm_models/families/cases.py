"""One tiny random model, of a few thousand parameters, for every kind of transformer that is supported."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.maxxvit import MaxxVit, MaxxVitCfg, MaxxVitConvCfg, MaxxVitTransformerCfg
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.swin_transformer_v2_cr import SwinTransformerV2Cr
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_relpos import ResPostRelPosBlock, VisionTransformerRelPos
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

from stochca._typing import TimmModule

IMAGE_SIZE = 16


@dataclass(frozen=True)
class Case:
    """A kind of transformer.

    Attributes:
        family: as the table calls it; several cases of one family are its variants.
        example: a model of timm like it.
        create: makes the tiny model, for images of `IMAGE_SIZE` pixels.
        containers: the modules that hold its blocks, in the order in which they run.
    """

    family: str
    example: str
    create: Callable[[], TimmModule]
    containers: Callable[[TimmModule], list[nn.Module]] = lambda model: [model.blocks]

    def model(self, seed: int = 0) -> TimmModule:
        """In evaluation mode, away from the flat start, so that a wrong norm or a swapped key shows."""
        torch.manual_seed(seed)
        model = self.create().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        return model

    def blocks(self, model: TimmModule) -> list[nn.Module]:
        return [
            block
            for container in self.containers(model)
            for block in container.children()
            if any(hasattr(part, "num_heads") for part in block.modules())
        ]


def images(number: int = 2) -> Tensor:
    return torch.randn(number, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(1))


def _plain(cls: Callable[..., TimmModule], **options: Any) -> Callable[[], TimmModule]:
    defaults: dict[str, Any] = {
        "img_size": IMAGE_SIZE,
        "patch_size": 8,
        "embed_dim": 16,
        "depth": 3,
        "num_heads": 2,
        "num_classes": 5,
        "mlp_ratio": 2,
    }
    return partial(cls, **{**defaults, **options})


def _windowed(cls: Callable[..., TimmModule], **options: Any) -> Callable[[], TimmModule]:
    defaults: dict[str, Any] = {
        "img_size": IMAGE_SIZE,
        "patch_size": 2,
        "embed_dim": 8,
        "depths": (2, 2),
        "num_heads": (1, 2),
        "window_size": 4,
        "num_classes": 5,
        "mlp_ratio": 2,
        "drop_path_rate": 0.0,
    }
    return partial(cls, **{**defaults, **options})


def _maxxvit(block_type: tuple[str, ...], **attention: Any) -> Callable[[], TimmModule]:
    config = MaxxVitCfg(
        embed_dim=(8, 16),
        depths=(1, 2),
        block_type=block_type,
        stem_width=4,
        conv_cfg=MaxxVitConvCfg(expand_ratio=1),
        transformer_cfg=MaxxVitTransformerCfg(
            dim_head=4, expand_ratio=2, window_size=(2, 2), grid_size=(2, 2), **attention
        ),
    )
    return partial(MaxxVit, config, img_size=IMAGE_SIZE, num_classes=5)


def _stages(name: str) -> Callable[[TimmModule], list[nn.Module]]:
    return lambda model: [stage.blocks for stage in getattr(model, name)]


_dinov3 = {
    "use_rot_pos_emb": True,
    "rope_type": "dinov3",
    "rope_rotate_half": True,
    "use_abs_pos_emb": False,
    "num_reg_tokens": 2,
    "init_values": 0.5,
    "qkv_bias": False,
}
_eva02 = {
    "use_rot_pos_emb": True,
    "rope_grid_offset": 0.5,
    "swiglu_mlp": True,
    "scale_mlp": True,
    "qkv_fused": False,
    "scale_attn_inner": True,
}
_rope = {"attn_type": "rope", "use_rot_pos_emb": True}

CASES: dict[str, Case] = {
    "vit": Case("ViT", "vit_base_patch16_224", _plain(VisionTransformer)),
    "deit3": Case(
        "DeiT, DeiT III",
        "deit3_base_patch16_224",
        _plain(VisionTransformer, no_embed_class=True, init_values=0.5),
    ),
    "clip": Case("CLIP", "vit_base_patch16_clip_224", _plain(VisionTransformer, pre_norm=True)),
    "siglip": Case(
        "SigLIP, SigLIP 2",
        "vit_base_patch16_siglip_224",
        _plain(VisionTransformer, class_token=False, global_pool="map"),
    ),
    "dinov2": Case(
        "DINOv2",
        "vit_small_patch14_reg4_dinov2",
        _plain(VisionTransformer, reg_tokens=2, no_embed_class=True, init_values=0.5),
    ),
    "dinov3": Case("DINOv3", "vit_small_patch16_dinov3", _plain(Eva, **_dinov3)),
    "dinov3 with biases": Case(
        "DINOv3", "vit_small_patch16_dinov3_qkvb", _plain(Eva, **{**_dinov3, "qkv_bias": True})
    ),
    "eva": Case("EVA", "eva_giant_patch14_224", _plain(Eva)),
    "eva02": Case("EVA-02", "eva02_base_patch14_448", _plain(Eva, **_eva02)),
    "eva02, fused": Case("EVA-02", "eva02_tiny_patch14_336", _plain(Eva, **{**_eva02, "qkv_fused": True})),
    "eva, post-norm": Case(
        "EVA", "eva02_enormous_patch14_clip_224", _plain(Eva, use_post_norm=True, init_values=None)
    ),
    "rope": Case("RoPE-ViT", "vit_base_patch16_rope_224", _plain(Eva, **_rope)),
    "rope, mixed": Case(
        "RoPE-ViT", "vit_base_patch16_rope_mixed_224", _plain(Eva, **_rope, rope_type="mixed")
    ),
    "perception encoder": Case(
        "Perception Encoder",
        "vit_pe_core_base_patch16_224",
        _plain(Eva, **_rope, use_pre_transformer_norm=True, global_pool="map", rope_grid_indexing="xy"),
    ),
    "grouped queries": Case(
        "Sapiens2",
        "vit_base_patch16_sapiens2",
        _plain(Eva, **_rope, qkv_fused=False, num_kv_heads=1, qk_norm=True),
    ),
    "beit": Case("BEiT, BEiT v2", "beitv2_base_patch16_224", _plain(Beit, use_rel_pos_bias=True)),
    "beit, shared bias": Case(
        "BEiT, BEiT v2",
        "beit_base_patch16_224",
        _plain(Beit, use_shared_rel_pos_bias=True, use_rel_pos_bias=True, init_values=0.5),
    ),
    "relative positions": Case(
        "ViT with relative positions",
        "vit_relpos_base_patch16_224",
        _plain(VisionTransformerRelPos, init_values=0.5, rel_pos_dim=8),
    ),
    "relative positions, class token": Case(
        "ViT with relative positions",
        "vit_relpos_base_patch16_cls_224",
        _plain(
            VisionTransformerRelPos,
            class_token=True,
            global_pool="token",
            rel_pos_type="bias",
            qk_norm=True,
            block_fn=ResPostRelPosBlock,
        ),
    ),
    "relative positions, shared": Case(
        "ViT with relative positions",
        "vit_srelpos_small_patch16_224",
        _plain(VisionTransformerRelPos, shared_rel_pos=True, rel_pos_dim=8),
    ),
    "sam": Case(
        "SAM",
        "samvit_base_patch16",
        _plain(
            VisionTransformerSAM,
            patch_size=2,
            window_size=3,
            global_attn_indexes=(1,),
            use_rel_pos=True,
            neck_chans=8,
        ),
    ),
    "sam, rotary": Case(
        "SAM",
        "samvit_base_patch16_224",
        _plain(
            VisionTransformerSAM,
            patch_size=2,
            window_size=4,
            global_attn_indexes=(1,),
            use_rope=True,
            neck_chans=0,
        ),
    ),
    "swin": Case(
        "Swin", "swin_tiny_patch4_window7_224", _windowed(SwinTransformer, window_size=2), _stages("layers")
    ),
    "swin, padded windows": Case(
        "Swin", "swin_base_patch4_window7_224", _windowed(SwinTransformer, window_size=3), _stages("layers")
    ),
    "swin v2": Case(
        "Swin V2",
        "swinv2_tiny_window8_256",
        _windowed(SwinTransformerV2, window_size=2),
        _stages("layers"),
    ),
    "swin v2, christoph reich": Case(
        "Swin V2 (CR)",
        "swinv2_cr_tiny_224",
        _windowed(SwinTransformerV2Cr, window_size=2),
        _stages("stages"),
    ),
    "maxvit": Case(
        "MaxViT, MaxxViT",
        "maxvit_rmlp_tiny_rw_256",
        _maxxvit(("M", "M"), rel_pos_type="mlp", rel_pos_dim=8),
        _stages("stages"),
    ),
    "maxvit, tensorflow": Case(
        "MaxViT, MaxxViT",
        "maxvit_tiny_tf_224",
        _maxxvit(("M", "M"), rel_pos_type="bias_tf", head_first=False),
        _stages("stages"),
    ),
    "maxvit, parallel": Case(
        "MaxViT, MaxxViT", "maxvit_tiny_pm_256", _maxxvit(("PM", "PM")), _stages("stages")
    ),
    "maxvit, channels first": Case(
        "MaxViT, MaxxViT",
        "maxxvit_rmlp_nano_rw_256",
        _maxxvit(("M", "M"), use_nchw_attn=True),
        _stages("stages"),
    ),
    "coatnet": Case("CoAtNet", "coatnet_0_rw_224", _maxxvit(("C", "T")), _stages("stages")),
}
