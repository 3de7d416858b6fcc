"""Backbones: what is refused, and that pretrained weights arrive where they belong."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional

from stochca.backbones.card import BackboneCard
from stochca.backbones.loading import (
    adapt_weights,
    create_backbone,
    head_prefixes,
    is_projection,
    load_backbone,
    pooling_options,
)
from stochca.errors import UserError
from stochca.timm_models.support import check_supported

IMAGES = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def pretrained() -> VisionTransformer:
    """timm's tiny `test_vit` (160 pixels, patch 16, 1000 classes), every tensor away from its default."""
    model = timm.create_model("test_vit").eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return model


def write_folder(folder: Path, model: VisionTransformer, **changes: object) -> Path:
    save_file(model.state_dict(), folder / "model.safetensors")
    card = {
        "architecture": "test_vit",
        "source": "file:x.pth",
        "source_sha256": None,
        "weights_sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "license": None,
        "parameters": 1,
        "blocks": 6,
        "image_size": 160,
        "patch_size": 16,
        "global_pool": "token",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "source_classes": 1000,
        "resize": None,
    }
    (folder / "card.json").write_text(json.dumps({**card, **changes}))
    return folder


@pytest.fixture
def folder(tmp_path: Path, pretrained: VisionTransformer) -> Path:
    return write_folder(tmp_path, pretrained)


# What is refused


@pytest.mark.parametrize(
    ("architecture", "image_size", "global_pool", "words"),
    [
        (
            "vit_smal_patch16_224",
            224,
            None,
            ["'vit_smal_patch16_224'", "did you mean", "vit_small_patch16_224"],
        ),
        ("dinov2", 224, None, ["'dinov2'", "did you mean", "vit_base_patch14_dinov2"]),
        ("hf-hub:some/model", 224, None, ["'hf-hub:some/model'", "no architecture"]),
        ("test_vit.wrong_tag", 160, None, ["'wrong_tag'", "r160_in1k"]),
        ("resnet18", 224, None, ["ResNet", "supported are", "deit_*"]),
        ("mvitv2_tiny", 224, None, ["MultiScaleVit", "supported are", "swin_*"]),
        ("swin_tiny_patch4_window7_224", 90, None, ["image_size 90", "patch size 4", "nearest: 88 and 92"]),
        ("swin_tiny_patch4_window7_224", 224, "token", ["global_pool 'token'", "its own is 'avg'"]),
        ("test_maxvit", 112, None, ["image_size 112", "nearest: 96 and 128"]),
        ("vit_small_patch14_dinov2", 64, None, ["image_size 64", "patch size 14", "nearest: 56 and 70"]),
        ("test_vit", 8, None, ["image_size 8", "nearest: 16"]),
        ("vit_medium_patch16_gap_256", 256, "token", ["global_pool 'token'", "its own is 'avg'"]),
    ],
)
def test_refuses_in_one_sentence(
    architecture: str, image_size: int, global_pool: str | None, words: list[str]
) -> None:
    with pytest.raises(UserError) as error, torch.device("meta"):
        create_backbone(architecture, image_size=image_size, num_classes=3, global_pool=global_pool)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_supported_accepts_transformers_only() -> None:
    with torch.device("meta"):
        check_supported(timm.create_model("deit_tiny_distilled_patch16_224"))
        with pytest.raises(UserError, match="MlpMixer"):
            check_supported(timm.create_model("mixer_s16_224"))


# Creation


@pytest.mark.parametrize(
    "architecture", ["test_vit", "vit_small_patch14_dinov2", "vit_base_patch16_clip_224"]
)
def test_created_model_has_the_size_asked_for(architecture: str) -> None:
    with torch.device("meta"):
        model = create_backbone(architecture, image_size=112, num_classes=5, drop_path=0.2)
        assert model(torch.zeros(1, 3, 112, 112)).shape == (1, 5)
        assert model.global_pool == timm.create_model(architecture).global_pool
    assert model.blocks[-1].drop_path1.drop_prob == pytest.approx(0.2)


@pytest.mark.parametrize("architecture", ["test_vit", "test_vit2", "vit_medium_patch16_reg1_gap_256"])
def test_pooling_does_not_move_the_norm(architecture: str) -> None:
    with torch.device("meta"):
        own = set(timm.create_model(architecture, num_classes=0).state_dict())
        for pooling in ("avg", "avgmax", "max"):
            model = create_backbone(architecture, image_size=256, num_classes=0, global_pool=pooling)
            assert model.global_pool == pooling
            assert set(model.state_dict()) == own


def test_pooling_leaves_a_norm_after_it_in_its_place() -> None:
    """The rare architecture that normalises after pooling keeps doing so."""
    with torch.device("meta"):
        own = timm.create_model("eva_large_patch14_196", num_classes=0)
        model = create_backbone("eva_large_patch14_196", image_size=196, num_classes=0, global_pool="token")
    assert "fc_norm.weight" in own.state_dict()
    assert set(model.state_dict()) == set(own.state_dict())


# Weights


def test_at_its_own_size_nothing_changes(pretrained: VisionTransformer) -> None:
    model = adapt_weights(pretrained.state_dict(), "test_vit", image_size=160).eval()
    assert torch.equal(model(IMAGES), pretrained(IMAGES))
    assert model.num_classes == 1000
    assert "state_dict" not in model.pretrained_cfg


def test_positions_are_resampled_and_everything_else_is_kept(pretrained: VisionTransformer) -> None:
    weights = pretrained.state_dict()
    adapted = adapt_weights(weights, "test_vit", image_size=64).state_dict()
    for name in weights.keys() - {"pos_embed"}:
        assert torch.equal(adapted[name], weights[name]), name
    grid = weights["pos_embed"][:, 1:].reshape(1, 10, 10, -1).permute(0, 3, 1, 2)
    smaller = functional.interpolate(grid, size=(4, 4), mode="bicubic", antialias=True)
    expected = torch.cat([weights["pos_embed"][:, :1], smaller.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
    torch.testing.assert_close(adapted["pos_embed"], expected)


def test_average_pooling_uses_the_pretrained_norm(pretrained: VisionTransformer) -> None:
    headless = {name: tensor for name, tensor in pretrained.state_dict().items() if "head" not in name}
    model = adapt_weights(headless, "test_vit", image_size=160, global_pool="avg").eval()
    torch.testing.assert_close(model(IMAGES), pretrained.forward_features(IMAGES)[:, 1:].mean(dim=1))


def test_attention_pooling_can_be_replaced() -> None:
    weights = timm.create_model("test_vit3", num_classes=0).state_dict()
    model = adapt_weights(weights, "test_vit3", image_size=160, global_pool="avg")
    assert any(name.startswith("attn_pool.") for name in weights)
    assert not any(name.startswith("attn_pool.") for name in model.state_dict())
    assert torch.equal(model.norm.weight, weights["norm.weight"])


def test_other_layouts_are_converted_without_touching_the_input(pretrained: VisionTransformer) -> None:
    original = {**pretrained.state_dict(), "mask_token": torch.zeros(1, 64)}  # as DINOv2's authors publish it
    names = list(original)
    adapt_weights(original, "test_vit", image_size=160)
    assert list(original) == names


@pytest.mark.parametrize("image_size", [160, 64])
def test_tensors_that_do_not_fit_are_named(pretrained: VisionTransformer, image_size: int) -> None:
    def refusal(weights: dict[str, Tensor]) -> str:
        with pytest.raises(UserError) as error:
            adapt_weights(weights, "test_vit", image_size=image_size, source="file:x.pth")
        return str(error.value)

    weights = pretrained.state_dict()
    wrong = {**weights, "blocks.2.attn.qkv.weight": torch.zeros(96, 64)}
    assert "file:x.pth does not fit test_vit" in refusal(wrong)
    assert "blocks.2.attn.qkv.weight is 96x64, not 192x64" in refusal(wrong)
    missing = {name: tensor for name, tensor in weights.items() if not name.startswith("blocks.5.")}
    assert "blocks.5.norm1.weight (64) is missing" in refusal(missing)
    assert "and 9 more" in refusal(missing)
    assert "blocks.6.norm1.weight (64) has no place" in refusal(
        {**weights, "blocks.6.norm1.weight": torch.ones(64)}
    )


def test_what_can_not_be_trained_is_refused(pretrained: VisionTransformer) -> None:
    """timm makes fp32 of whole numbers, and training would blame the learning rate for what isn't finite."""
    weights, name = pretrained.state_dict(), "blocks.3.mlp.fc1.weight"
    for wrong, values in {
        "int8": (weights[name] * 100).to(torch.int8),
        "bool": weights[name] > 0,
        "not finite": torch.where(weights[name] > weights[name].mean(), torch.nan, weights[name]),
        "are not finite": torch.full_like(weights[name], torch.inf),
    }.items():
        with pytest.raises(UserError, match=f"^the file has .* {name}.*") as refused:
            adapt_weights({**weights, name: values}, "test_vit", image_size=160, source="the file")
        assert wrong in str(refused.value)
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        model = adapt_weights({**weights, name: weights[name].to(kind)}, "test_vit", image_size=160)
        assert model.get_parameter(name).dtype == torch.float32


def test_weights_of_another_architecture_are_refused(pretrained: VisionTransformer) -> None:
    with pytest.raises(UserError, match=r"patch_embed\.proj\.weight is 64x3x16x16, not 96x3x16x16, .* more$"):
        adapt_weights(pretrained.state_dict(), "test_vit3", image_size=160)
    with pytest.raises(UserError, match=r"holds no tensor that test_vit has; .* are called bn1\.bias, bn1"):
        adapt_weights(timm.create_model("test_resnet").state_dict(), "test_vit", image_size=64)
    unlike = {**pretrained.state_dict(), "patch_embed.proj.weight": torch.zeros(5, 7)}
    with pytest.raises(UserError, match=r"can't be converted to test_vit"):
        adapt_weights(unlike, "test_vit", image_size=64)


# Other families

OTHERS = {
    "eva02_tiny_patch14_224": 112,
    "vit_small_patch16_dinov3": 64,
    "beit_base_patch16_224": 64,
    "vit_relpos_small_patch16_224": 64,
    "swin_tiny_patch4_window7_224": 112,
    "swinv2_tiny_window8_256": 128,
    "test_maxvit": 96,
}


@pytest.mark.parametrize(("architecture", "image_size"), OTHERS.items())
def test_weights_of_other_families_are_fitted_to_the_image_size(
    architecture: str, image_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small ones of their kind: what timm resamples fits, the rest arrives as it is, head and all."""
    small: dict[str, Any] = {"depth": 2, "embed_dim": 48, "num_heads": 3}
    if "swin" in architecture:
        small = {"depths": (1, 1, 1, 1), "embed_dim": 16, "num_heads": (1, 2, 4, 8)}
    elif architecture == "test_maxvit":
        small = {}
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **{**options, **small}))
    weights = create(architecture, num_classes=3, **small).state_dict()
    model = adapt_weights(weights, architecture, image_size=image_size)
    images = torch.randn(1, 3, image_size, image_size)
    assert model.eval()(images).shape == (1, 3)
    adapted = model.state_dict()
    same = {name for name, tensor in weights.items() if adapted[name].shape == tensor.shape}
    assert all(torch.equal(adapted[name], weights[name]) for name in same)
    assert all("pos" in name or "table" in name for name in weights.keys() - same)
    body = {name: tensor for name, tensor in weights.items() if not name.startswith(head_prefixes(model))}
    headless = adapt_weights(body, architecture, image_size=image_size).eval()
    assert headless(images).shape == (1, model.num_features)
    again = create(architecture, img_size=image_size, num_classes=3, **pooling_options(model), **small)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(images), model(images))


# The folder


def test_folder_gives_its_weights_and_a_fresh_head(folder: Path, pretrained: VisionTransformer) -> None:
    model = load_backbone(folder, num_classes=7, drop_path=0.1)
    weights = model.state_dict()
    for name, tensor in load_file(folder / "model.safetensors").items():
        if not name.startswith("head."):
            assert torch.equal(weights[name], tensor), name
    assert weights["head.weight"].shape == (7, 64)
    assert weights["head.weight"].std().item() == pytest.approx(0.02, rel=0.2)
    assert not weights["head.bias"].any()
    assert model.blocks[-1].drop_path1.drop_prob == pytest.approx(0.1)
    features = load_backbone(folder, num_classes=0).eval()(IMAGES)
    torch.testing.assert_close(features, pretrained.forward_head(pretrained.forward_features(IMAGES), True))


def test_head_depends_on_the_seed_alone(folder: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = load_backbone(folder, num_classes=7, seed=5).head.weight
    assert torch.equal(torch.get_rng_state(), before)
    torch.randn(100)
    assert torch.equal(load_backbone(folder, num_classes=7, seed=5, drop_path=0.3).head.weight, first)
    assert not torch.equal(load_backbone(folder, num_classes=7, seed=6).head.weight, first)


@pytest.mark.parametrize(
    ("architecture", "outputs", "expected"),
    [
        ("vit_base_patch16_clip_224.openai", 512, True),
        ("vit_base_patch16_clip_224", 512, True),  # of a file
        ("vit_base_patch16_clip_224.openai_ft_in12k", 11821, False),
        ("vit_base_patch16_clip_224", 1000, False),
        ("vit_pe_core_tiny_patch16_384.fb", 512, True),
        ("vitamin_small_224.datacomp1b_clip", 384, True),
        ("vit_base_patch16_224.augreg_in21k", 21843, False),
        ("test_vit", 1000, False),
    ],
)
def test_what_matches_images_with_texts_is_no_classifier(
    architecture: str, outputs: int, expected: bool
) -> None:
    assert is_projection(architecture, outputs) == expected


def test_card_goes_to_json_and_back(folder: Path) -> None:
    card = BackboneCard.from_file(folder / "card.json")
    assert card.to_dict() == json.loads((folder / "card.json").read_text())
    assert isinstance(hash(card), int)
    with pytest.raises(dataclasses.FrozenInstanceError):
        card.blocks = 3  # type: ignore[misc]


def test_incomplete_or_changed_folders_are_refused(folder: Path, pretrained: VisionTransformer) -> None:
    weights, card = folder / "model.safetensors", folder / "card.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=r"model\.safetensors is not what card\.json describes: its sha256"):
        load_backbone(folder, num_classes=2)
    weights.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors is missing; run the stage backbone"):
        load_backbone(folder, num_classes=2)
    for damage in ("{", "[]", "{}", '{"mean": [1], "std": [1], "colour": 2}'):
        card.write_text(damage)
        with pytest.raises(UserError, match=r"card\.json is damaged"):
            load_backbone(folder, num_classes=2)
    card.unlink()
    with pytest.raises(UserError, match=r"card\.json is missing"):
        load_backbone(folder, num_classes=2)
    write_folder(folder, pretrained, image_size=64)
    with pytest.raises(UserError, match=r"pos_embed is 1x101x64, not 1x17x64"):
        load_backbone(folder, num_classes=2)
