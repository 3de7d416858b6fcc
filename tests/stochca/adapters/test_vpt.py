"""VPT against prompts that are concatenated by hand, block by block."""

import math
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

import stochca
from stochca._typing import TimmModule
from stochca.errors import UserError
from tests.stochca.tiny import CLASSES, tiny_vit

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def by_hand(model: TimmModule, prompts: Tensor, deep: bool, images: Tensor) -> Tensor:
    x = model.norm_pre(model._pos_embed(model.patch_embed(images)))
    count = prompts.shape[1]
    for i, block in enumerate(model.blocks):
        if i == 0:
            rest = x[:, 1:]
        elif deep:
            rest = x[:, 1 + count :]
        if i == 0 or deep:
            x = torch.cat([x[:, :1], torch.stack([prompts[i]] * len(x)), rest], dim=1)
        x = block(x)
    x = model.norm(x)
    patches = x[:, 1 + count :]
    pooled = patches.mean(dim=1) if model.global_pool == "avg" else x[:, 0]
    return model.head(model.fc_norm(pooled))


@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize("options", [{}, {"global_pool": "avg"}])
def test_equals_prompts_by_hand(deep: bool, options: dict[str, Any]) -> None:
    model = stochca.VPT(tiny_vit(**options), tokens=2, deep=deep).eval()
    assert model.prompts.shape == (3 if deep else 1, 2, 16)
    expected = by_hand(model.backbone, model.prompts, deep, IMAGES)
    torch.testing.assert_close(model(IMAGES), expected)
    assert not torch.allclose(model(IMAGES), model.backbone(IMAGES))


def test_prompts_start_in_the_papers_range() -> None:
    model = stochca.VPT(tiny_vit(embed_dim=64, num_heads=2), tokens=500)
    limit = math.sqrt(6 / (3 * 8 * 8 + 64))
    assert model.prompts.abs().max() <= limit
    assert model.prompts.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("deep", [True, False])
def test_prompts_and_head_learn_and_nothing_else(deep: bool, checkpointing: bool) -> None:
    model = stochca.VPT(tiny_vit(), tokens=2, deep=deep)
    model.set_grad_checkpointing(checkpointing)
    model.train()
    model(IMAGES).square().sum().backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learning == {"prompts", "backbone.head.weight", "backbone.head.bias"}
    assert learning == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert model.prompts.grad is not None
    assert model.prompts.grad.flatten(1).any(dim=1).all()  # of every block
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert count == (3 if deep else 1) * 2 * 16 + 16 * CLASSES + CLASSES


def test_the_backbone_stays_in_evaluation_mode_and_prompts_drop_out() -> None:
    model = stochca.VPT(tiny_vit(drop_path_rate=0.9, proj_drop_rate=0.9), tokens=2, dropout=0.5).train()
    assert not torch.equal(model(IMAGES), model(IMAGES))
    model.dropout = torch.nn.Dropout(0.0)
    expected = model(IMAGES)
    assert torch.equal(model(IMAGES), expected)
    assert torch.equal(model.eval()(IMAGES), expected)


def test_other_prefixes() -> None:
    """Registers beside a class token, and no class token at all: prompts leave before tokens are pooled."""
    for options in ({"reg_tokens": 3}, {"class_token": False, "global_pool": "avg"}):
        model = stochca.VPT(tiny_vit(**options), tokens=2)
        tokens = model.forward_features(IMAGES)
        assert tokens.shape == model.backbone.forward_features(IMAGES).shape


def test_what_is_saved_is_small_and_enough() -> None:
    model = stochca.VPT(tiny_vit(), tokens=2)
    state = model.adapter_state()
    assert set(state) == {"prompts", "backbone.head.weight", "backbone.head.bias", "made_for"}
    backbone = tiny_vit()
    torch.manual_seed(1)
    other = stochca.VPT(backbone, tokens=2)
    assert not torch.equal(other(IMAGES), model(IMAGES))
    other.load_adapter_state(state)
    assert torch.equal(other(IMAGES), model(IMAGES))
    with pytest.raises(RuntimeError, match="prompts"):
        other.load_adapter_state({name: value for name, value in state.items() if name != "prompts"})
    with pytest.raises(UserError, match="made for another backbone than this VPT has"):
        stochca.VPT(tiny_vit(seed=1), tokens=2).load_adapter_state(state)
    del state["made_for"]  # as in files from before
    stochca.VPT(tiny_vit(seed=1), tokens=2).load_adapter_state(state)


@pytest.mark.parametrize("adapter", [stochca.VPT, stochca.TOAST])
def test_other_architectures_are_refused(adapter: Any) -> None:
    with pytest.raises(
        UserError, match=r"does not support ResNet: its blocks .*; supported are timm's Vision"
    ):
        adapter(timm.create_model("test_resnet"))
