"""LoRA against W + alpha/rank · B A by hand."""

import copy
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from stochca._typing import TimmModule
from stochca.attention.stochca import StochCA
from stochca.config import Lora, Method, StochasticCrossAttention, build
from stochca.errors import UserError
from stochca.training.composition import compose, kept_model
from tests.stochca.tiny import CLASSES, tiny_vit

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LORA = Lora(rank=2, alpha=3.0)


def adapted(train: Lora = LORA, **choices: Any) -> tuple[Any, TimmModule]:
    """A model whose updates are far from zero."""
    model, student = compose(Method(adapter=train, **choices), tiny_vit())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model, student.eval()


def by_hand(student: TimmModule, layers: tuple[str, ...] = ("attn.qkv",)) -> TimmModule:
    """A plain model with the updated weights."""
    state = student.state_dict()
    plain = tiny_vit().eval()
    for i in range(3):
        for layer in layers:
            name = f"blocks.{i}.{layer}"
            up, down = state[f"{name}.lora_B.default.weight"], state[f"{name}.lora_A.default.weight"]
            with torch.no_grad():
                plain.get_submodule(name).weight.add_(3.0 / 2 * up @ down)
    return plain


def test_equals_the_updated_weights() -> None:
    _, student = adapted()
    expected = by_hand(student)(IMAGES)
    torch.testing.assert_close(student(IMAGES), expected)
    assert (expected - tiny_vit().eval()(IMAGES)).abs().max() > 0.01


def test_starts_as_the_pretrained_model() -> None:
    _, student = compose(Method(adapter=LORA), tiny_vit())
    assert torch.equal(student.eval()(IMAGES), tiny_vit().eval()(IMAGES))


def test_merged_is_a_plain_model_that_equals_unmerged() -> None:

    _, student = adapted()
    logits = student(IMAGES)
    before = copy.deepcopy(student.state_dict())
    copied = build(LORA).plain(student)
    after = student.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    merged = build(LORA).finish(student)
    assert merged is student
    for model in (copied, merged):
        plain = tiny_vit().eval()
        plain.load_state_dict(model.state_dict())  # every name is where timm has it
        torch.testing.assert_close(plain(IMAGES), logits)
        assert torch.equal(model(IMAGES), plain(IMAGES))
    assert not hasattr(merged, "peft_config")


@pytest.mark.parametrize("checkpointing", [False, True])
def test_updates_and_head_learn_and_nothing_else(checkpointing: bool) -> None:
    _, student = adapted()
    student.set_grad_checkpointing(checkpointing)
    student.train()
    student(IMAGES).square().sum().backward()
    learning = {name for name, parameter in student.named_parameters() if parameter.grad is not None}
    updates = {f"blocks.{i}.attn.qkv.lora_{part}.default.weight" for i in range(3) for part in "AB"}
    assert learning == {"head.weight", "head.bias", *updates}
    count = sum(parameter.numel() for parameter in student.parameters() if parameter.requires_grad)
    assert count == 3 * 2 * (16 + 3 * 16) + 16 * CLASSES + CLASSES


def test_other_targets_never_reach_the_head() -> None:
    _, student = adapted(Lora(rank=2, alpha=3.0, targets=("attn.proj", "fc1")))
    found = {name.rpartition(".lora_A")[0] for name, _ in student.named_parameters() if ".lora_A" in name}
    assert found == {f"blocks.{i}.{layer}" for i in range(3) for layer in ("attn.proj", "mlp.fc1")}
    torch.testing.assert_close(student(IMAGES), by_hand(student, ("attn.proj", "mlp.fc1"))(IMAGES))


def test_targets_that_match_nothing_are_refused() -> None:
    sentence = (
        "'query' matches no linear layer .*; its linear layers are attn.qkv, attn.proj, mlp.fc1, mlp.fc2$"
    )
    for targets in (("query",), ("qkv", "query")):
        with pytest.raises(UserError, match=sentence):
            build(Lora(targets=targets)).check(tiny_vit())
    for head in ("head", "kv"):  # ends of names are whole words
        with pytest.raises(UserError, match="matches no linear layer"):
            build(Lora(targets=(head,))).check(tiny_vit())


def cross_attended(plain: TimmModule, blocks: list[int]) -> Tensor:
    """StochCA over weights that are updated by hand, its teacher as it was pretrained."""
    model = StochCA(plain, teacher=tiny_vit())
    return model.eval()(IMAGES, cross_blocks=blocks)


@pytest.mark.parametrize("blocks", [[0], [1, 2], [0, 1, 2]])
def test_stochca_takes_queries_from_updated_weights_and_keys_from_pretrained_ones(blocks: list[int]) -> None:
    model, student = adapted(attention=StochasticCrossAttention(prob=0.5, teacher_precision="same"))
    assert isinstance(model, StochCA)
    assert model.student is student
    torch.testing.assert_close(
        model.eval()(IMAGES, cross_blocks=blocks), cross_attended(by_hand(student), blocks)
    )


def test_what_is_kept_is_the_student() -> None:
    student = tiny_vit()
    assert kept_model(Method(adapter=LORA), student) is student
    assert student.state_dict().keys() == tiny_vit().state_dict().keys()


def test_without_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stochca.adapters.low_rank.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match="LoRA needs the package peft; install it"):
        build(LORA).check(tiny_vit())
