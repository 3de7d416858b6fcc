import pytest
import torch

from stochca.analysis import block_features, linear_cka
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
