"""The card of a backbone that no file holds."""

from typing import Any

from stochca.backbones.card import BackboneCard


def backbone_card(**changes: Any) -> BackboneCard:
    """timm's `test_vit` for images of 32 pixels, but for what `changes` says."""
    fields: dict[str, Any] = {
        "architecture": "test_vit",
        "source": "file:none",
        "source_sha256": None,
        "weights_sha256": "0" * 64,
        "license": "MIT",
        "parameters": 1,
        "blocks": 2,
        "image_size": 32,
        "patch_size": 16,
        "global_pool": "token",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "interpolation": "bicubic",
        "source_classes": 0,
    }
    return BackboneCard(**{**fields, **changes})
