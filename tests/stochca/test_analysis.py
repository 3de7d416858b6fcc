from typing import Any

import pytest
import torch

from stochca.analysis import attention_maps, block_features, linear_cka, weight_distances
from stochca.errors import UserError
from tests.stochca.timm_models.families.cases import CASES, images
from tests.stochca.tiny import tiny_vit


def test_cka_ignores_rotation_and_scale_and_sees_independence() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 8, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64))[0]
    assert linear_cka(features, 3 * features @ rotation + 5) == pytest.approx(1)
    assert linear_cka(features, torch.randn(200, 8, generator=generator)) < 0.1


def test_cka_equals_its_definition_by_gram_matrices() -> None:
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with linear kernels."""
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(30, 5, generator=generator, dtype=torch.float64)
    second = torch.cat([first[:, :2], torch.randn(30, 4, generator=generator, dtype=torch.float64)], dim=1)
    centring = torch.eye(30, dtype=torch.float64) - 1 / 30

    def hsic(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(torch.trace(a @ a.T @ centring @ (b @ b.T) @ centring))

    expected = hsic(first, second) / (hsic(first, first) * hsic(second, second)) ** 0.5
    assert linear_cka(first, second) == pytest.approx(expected)


def test_block_features_are_those_of_a_forward_block_by_block() -> None:
    model = tiny_vit().train()
    images = torch.randn(4, 3, 16, 16)
    found = block_features(model, images)
    assert model.training
    model.eval()
    tokens = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))
    assert len(found) == len(model.blocks)
    for block, (first, mean) in zip(model.blocks, found, strict=True):
        tokens = block(tokens)
        torch.testing.assert_close(first, tokens[:, 0])
        torch.testing.assert_close(mean, tokens[:, 1:].mean(dim=1))


def test_a_register_is_no_class_token() -> None:
    model = tiny_vit(class_token=False, global_pool="avg", reg_tokens=2)
    for first, mean in block_features(model, torch.randn(2, 3, 16, 16)):
        torch.testing.assert_close(first, mean)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"class_token": False, "global_pool": "avg"},
        {"qk_norm": True, "reg_tokens": 2},
        {"class_token": False, "global_pool": "avg", "reg_tokens": 2},  # as timm's vit_*_reg4_gap_256
    ],
)
def test_attention_maps_are_the_softmax_of_the_definition(options: dict[str, Any], fused: bool) -> None:
    model = tiny_vit(**options).train()
    for block in model.blocks:
        block.attn.fused_attn = fused
        torch.nn.init.normal_(block.attn.qkv.weight)  # or all patches would get the same
    images = torch.randn(4, 3, 16, 16)
    found = attention_maps(model, images)
    assert model.training
    assert all(block.attn.fused_attn is fused for block in model.blocks)
    model.eval()
    tokens = model.norm_pre(model._pos_embed(model.patch_embed(images)))
    prefix = model.num_prefix_tokens
    for block, maps in zip(model.blocks, found, strict=True):
        attention = block.attn
        query, key, _ = attention.qkv(block.norm1(tokens)).unflatten(2, (3, 2, 8)).unbind(2)
        query, key = attention.q_norm(query), attention.k_norm(key)
        weights = torch.einsum("bnhd,bmhd->bhnm", query, key).div(8**0.5).softmax(dim=-1).mean(dim=1)
        first = weights[:, 0] if options.get("class_token", True) else weights[:, prefix:].mean(dim=1)
        expected = first[:, prefix:]
        torch.testing.assert_close(maps, expected.reshape(4, 2, 2))
        tokens = block(tokens)


def test_models_that_do_not_attend_to_all_patches_are_refused() -> None:
    class Pooling(torch.nn.Module):
        def forward(self, tokens: torch.Tensor, **options: Any) -> torch.Tensor:
            return tokens.mean(dim=1, keepdim=True)

    model = tiny_vit()
    model.blocks[1].attn = Pooling()
    with pytest.raises(UserError, match="VisionTransformer has no attention maps: 2 of its 3 blocks"):
        attention_maps(model, torch.randn(1, 3, 16, 16))


@pytest.mark.parametrize("name", ["dinov3", "eva02", "beit", "relative positions"])
def test_attention_maps_of_other_families_are_shares(name: str) -> None:
    model = CASES[name].model()
    maps = attention_maps(model, images())
    assert len(maps) == len(model.blocks)
    totals = torch.stack([of_block.flatten(1).sum(dim=1) for of_block in maps])
    assert (totals > 0).all()
    assert (totals <= 1 + 1e-5).all()


@pytest.mark.parametrize("name", ["sam", "swin", "swin v2, christoph reich", "maxvit", "coatnet"])
def test_models_with_windows_or_maps_have_no_attention_maps(name: str) -> None:
    with pytest.raises(UserError, match="a picture of attention does not support"):
        attention_maps(CASES[name].model(), images())


def test_distances_are_relative_and_per_block() -> None:
    start, model = tiny_vit(), tiny_vit()
    with torch.no_grad():
        for parameter in model.blocks[1].parameters():
            parameter.mul_(1.5)
        model.head.weight.add_(1)
    assert weight_distances(model, start) == pytest.approx([0, 0.5, 0])
