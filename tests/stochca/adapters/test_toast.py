"""TOAST against two passes that are written out."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import stochca
from stochca._typing import TimmModule
from stochca.adapters.toast import make_decoders
from stochca.config import Toast, ToastLite, build
from stochca.errors import UserError
from tests.stochca.tiny import CLASSES, tiny_vit

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
DIM, DEPTH = 16, 3


def attend_by_hand(attention: TimmModule, x: Tensor, top_down: Tensor | None) -> Tensor:
    weight_q, weight_k, weight_v = attention.qkv.weight.chunk(3)
    bias_q, bias_k, bias_v = attention.qkv.bias.chunk(3)
    value = x @ weight_v.T + bias_v
    if top_down is not None:
        value = value + top_down @ weight_v.T + bias_v
    heads = []
    for head in range(attention.num_heads):
        part = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
        query, key = (x @ weight_q.T + bias_q)[..., part], (x @ weight_k.T + bias_k)[..., part]
        query, key = attention.q_norm(query), attention.k_norm(key)
        scores = query @ key.transpose(1, 2) / attention.head_dim**0.5
        heads.append(scores.softmax(dim=-1) @ value[..., part])
    return attention.proj(torch.cat(heads, dim=-1))


def pass_by_hand(model: TimmModule, images: Tensor, top_down: list[Tensor] | None) -> Tensor:
    x = model._pos_embed(model.patch_embed(images))
    for i, block in enumerate(model.blocks):
        x = x + attend_by_hand(block.attn, block.norm1(x), None if top_down is None else top_down[i])
        x = x + block.mlp(block.norm2(x))
    return model.norm(x)


def toast_by_hand(model: Any, images: Tensor) -> Tensor:
    seen = pass_by_hand(model.backbone, images, None)
    task = model.task
    cosine = (seen * task).sum(dim=-1) / (seen.norm(dim=-1) * task.norm())
    signal = seen * cosine.clamp(0, 1).unsqueeze(-1) @ model.transform
    top_down: list[Any] = [None] * DEPTH
    for i in (2, 1, 0):
        signal = signal @ weight_of(model.decoders[i].pass_on).T
        top_down[i] = signal @ weight_of(model.decoders[i].emit).T
    return model.backbone.head(pass_by_hand(model.backbone, images, top_down)[:, 0])


def weight_of(linear: Any) -> Tensor:
    if isinstance(linear, torch.nn.Linear):
        return linear.weight
    down, up = linear.lora_A["default"].weight, linear.lora_B["default"].weight
    return linear.base_layer.weight + linear.scaling["default"] * up @ down


def enlivened(model: Any) -> Any:
    """Large enough to matter, where the real ones start small or at zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.transform.add_(0.3 * torch.randn(DIM, DIM, generator=generator))
        for parameter in model.decoders.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize("lite", [False, True])
@pytest.mark.parametrize("options", [{}, {"qk_norm": True}])
def test_equals_two_passes_by_hand(lite: bool, options: dict[str, Any]) -> None:
    model = enlivened(stochca.TOAST(tiny_vit(**options), lite=lite))
    logits = model(IMAGES)
    torch.testing.assert_close(logits, toast_by_hand(model, IMAGES))
    assert (logits - model.backbone(IMAGES)).abs().max() > 0.01


@pytest.mark.parametrize("checkpointing", [False, True])
def test_decoders_task_and_head_learn(checkpointing: bool) -> None:
    model = stochca.TOAST(tiny_vit())
    model.set_grad_checkpointing(checkpointing)
    enlivened(model).train()
    model(IMAGES).square().sum().backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    decoders = {f"decoders.{i}.{part}.weight" for i in range(DEPTH) for part in ("pass_on", "emit")}
    assert learning == {"task", "backbone.head.weight", "backbone.head.bias", *decoders}
    assert all(parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None)
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert count == DEPTH * 2 * DIM * DIM + DIM + DIM * CLASSES + CLASSES
    # Less than the frozen backbone, more than the updates of TOAST-Lite.
    lite = stochca.TOAST(tiny_vit(), lite=True, rank=2)
    count = sum(parameter.numel() for parameter in lite.parameters() if parameter.requires_grad)
    assert count == DEPTH * 2 * 2 * 2 * DIM + DIM * DIM + DIM + DIM * CLASSES + CLASSES
    frozen = {name for name, parameter in lite.named_parameters() if not parameter.requires_grad}
    assert {f"decoders.{i}.emit.base_layer.weight" for i in range(DEPTH)} < frozen


def test_the_transform_starts_as_the_identity() -> None:
    model = stochca.TOAST(tiny_vit())
    assert torch.equal(model.transform, torch.eye(DIM))


@pytest.mark.parametrize("lite", [False, True])
def test_training_beside_random_decoders_is_said_once(lite: bool, tmp_path: Path) -> None:
    path = tmp_path / "decoders.safetensors"
    save_file(make_decoders(tiny_vit()).state_dict(), path)
    model = stochca.TOAST(tiny_vit(), lite=lite)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.eval()(IMAGES)
        with pytest.warns(UserWarning, match=r"decoders started at random, .*; pre-tune them"):
            model.train()(IMAGES)
        model(IMAGES)
        stochca.TOAST(tiny_vit(), lite=lite, decoders=path).train()(IMAGES)
        again = stochca.TOAST(tiny_vit(), lite=lite)
        again.load_adapter_state(model.adapter_state())
        again.train()(IMAGES)
        config = (ToastLite if lite else Toast)()
        build(config).adapt(tiny_vit()).train()(IMAGES)
    assert "started at random" in build(config).notes[0]


def test_tuned_decoders_are_loaded_or_refused(tmp_path: Path) -> None:
    torch.manual_seed(7)
    tuned = make_decoders(tiny_vit(seed=7))
    path = tmp_path / "decoders.safetensors"
    save_file(tuned.state_dict(), path)
    for lite in (False, True):
        model = stochca.TOAST(tiny_vit(), lite=lite, decoders=path)
        for i, decoder in enumerate(tuned):
            for part in ("pass_on", "emit"):
                found = weight_of(getattr(model.decoders[i], part))
                assert torch.equal(found, getattr(decoder, part).weight)
    with pytest.raises(UserError, match=r"holds no decoders for this backbone .*size mismatch"):
        stochca.TOAST(tiny_vit(embed_dim=8), decoders=path)
    with pytest.raises(UserError, match="is missing; pre-tune decoders first"):
        stochca.TOAST(tiny_vit(), decoders=tmp_path / "none")
