"""TOAST for language models against two passes that are written out."""

import copy
import threading
import warnings
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from stochca.errors import UserError
from stochca.language import TOAST
from stochca.language.two_pass_cache import TwoPassCache
from tests.stochca.language.slow_reference import (
    cross_entropy_by_hand,
    reconstruction_by_hand,
    toast_by_hand,
    weight_of,
)
from tests.stochca.language.tiny import (
    FAMILIES,
    KERNELS,
    LAYERS,
    VOCABULARY,
    WIDTH,
    lively_toast,
    padded,
    tiny_model,
    tokens,
    transformers,
)


def logits_by_hand(toast: TOAST, batch: Tensor) -> Tensor:
    return torch.stack([toast_by_hand(toast, row)[1].logits for row in batch])


@pytest.mark.parametrize(("family", "attention"), KERNELS)
def test_equals_two_passes_by_hand(family: str, attention: str) -> None:
    model = tiny_model(family, attention=attention)
    plain = model(tokens()).logits
    toast = lively_toast(model)
    assert type(toast.backbone) is type(model)
    logits = toast(tokens()).logits
    torch.testing.assert_close(logits, logits_by_hand(toast, tokens()), rtol=1e-4, atol=1e-4)
    assert (logits - plain).abs().max() > 0.05
    torch.testing.assert_close(model(tokens()).logits, plain)  # by itself it is what it was


@pytest.mark.parametrize(
    ("options", "learned"), [({}, "task"), ({}, "decoders"), ({"rank": 2, "alpha": 3.0}, "task")]
)
def test_loss_and_gradients_equal_those_by_hand(
    options: dict[str, Any], learned: Literal["task", "decoders"]
) -> None:
    toast = lively_toast(tiny_model("Qwen3"), **options).train()
    toast.learn(learned)
    batch, labels = tokens(), tokens().clone()
    labels[:, :3] = -100
    output = toast(batch, labels=labels)
    passes = [toast_by_hand(toast, row)[1] for row in batch]
    reconstruction = reconstruction_by_hand(toast, passes)
    by_hand = cross_entropy_by_hand([each.logits for each in passes], list(labels)) + reconstruction
    torch.testing.assert_close(output.loss, by_hand)
    torch.testing.assert_close(output.reconstruction, reconstruction)
    parameters = [parameter for parameter in toast.parameters() if parameter.requires_grad]
    expected = torch.autograd.grad(by_hand, parameters)
    for found, wanted in zip(torch.autograd.grad(output.loss, parameters), expected, strict=True):
        assert wanted.abs().max() > 1e-5
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


def test_what_learns() -> None:
    model = tiny_model()
    toast = TOAST(model)

    def learning() -> set[str]:
        return {name for name, parameter in toast.named_parameters() if parameter.requires_grad}

    emits = {f"decoders.{i}.emit.weight" for i in range(LAYERS)}
    assert learning() == {"task", *emits}
    toast.learn("decoders")
    assert learning() == {
        "task",
        "transform",
        *emits,
        *(f"decoders.{i}.pass_on.weight" for i in range(LAYERS)),
    }
    toast.learn("task")
    assert learning() == {"task", *emits}
    toast = TOAST(model, rank=4)
    assert learning() == {"task", *(name for name, _ in toast.named_parameters() if "lora_" in name)}
    assert sum(p.numel() for p in toast.parameters() if p.requires_grad) == WIDTH + LAYERS * 4 * 4 * WIDTH
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(UserError, match="low-rank updates alone"):
        toast.learn("decoders")
    with pytest.raises(UserError, match="found 'all'"):
        toast.learn("all")  # type: ignore[arg-type]


def test_the_loss_in_evaluation_is_the_cross_entropy() -> None:
    toast = lively_toast(tiny_model())
    output = toast(tokens(), labels=tokens())
    logits = list(logits_by_hand(toast, tokens()))
    torch.testing.assert_close(
        output.loss, cross_entropy_by_hand(logits, list(tokens())), rtol=1e-4, atol=1e-4
    )
    assert output.reconstruction is None
    assert toast(tokens(), labels=tokens(), return_dict=False)[0] == output.loss


@pytest.mark.parametrize("family", FAMILIES)
def test_no_output_depends_on_a_later_token(family: str) -> None:
    toast = lively_toast(tiny_model(family))
    batch = tokens()
    logits = toast(batch).logits
    for n in range(1, batch.shape[1]):
        changed = batch.clone()
        changed[:, n] = 3 + (changed[:, n] - 2) % (VOCABULARY - 3)
        others = toast(changed).logits
        torch.testing.assert_close(others[:, :n], logits[:, :n])
        assert (others[:, n] - logits[:, n]).abs().max() > 1e-3


@pytest.mark.parametrize(("family", "attention"), KERNELS)
@pytest.mark.parametrize("left", [True, False])
def test_padding_changes_nothing(family: str, attention: str, left: bool) -> None:
    toast = lively_toast(tiny_model(family, attention=attention)).train()
    sequences = [tokens(1, length, seed=length)[0] for length in (4, 9, 6)]
    batch, mask = padded(sequences, left)
    output = toast(batch, attention_mask=mask, labels=batch.masked_fill(mask == 0, -100))
    passes = [toast_by_hand(toast, sequence)[1] for sequence in sequences]
    for row, seen, each in zip(output.logits, mask.bool(), passes, strict=True):
        torch.testing.assert_close(row[seen], each.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        output.reconstruction, reconstruction_by_hand(toast, passes), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", [{}, {"rank": 2}])
def test_gradient_checkpointing_changes_no_gradient(family: str, options: dict[str, Any]) -> None:
    toast = lively_toast(tiny_model(family), **options).train()

    def gradients() -> dict[str, Tensor]:
        toast.zero_grad()
        toast(tokens(), labels=tokens()).loss.backward()
        return {name: p.grad.clone() for name, p in toast.named_parameters() if p.grad is not None}

    calls = []
    toast.backbone.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    plain = gradients()
    assert len(calls) == 2
    toast.gradient_checkpointing_enable()
    checkpointed = gradients()
    assert len(calls) == 5  # the second pass runs it again
    assert plain.keys() == checkpointed.keys() == {n for n, p in toast.named_parameters() if p.requires_grad}
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient)
        assert name.endswith("lora_A.default.weight") or gradient.abs().max() > 1e-6
    toast.gradient_checkpointing_disable()
    gradients()
    assert len(calls) == 7
    with pytest.raises(UserError, match="use_reentrant"):
        toast.gradient_checkpointing_enable({"use_reentrant": True})


def test_starts_as_the_paper_or_as_the_plain_model() -> None:
    model = tiny_model()
    plain = model(tokens()).logits
    torch.testing.assert_close(TOAST(model, plain_start=True)(tokens()).logits, plain)
    toast = TOAST(model)
    assert toast.transform.equal(torch.eye(WIDTH))
    assert 0.015 < toast.decoders.get_parameter("0.emit.weight").std() < 0.025
    torch.testing.assert_close(TOAST(model, rank=4, plain_start=True)(tokens()).logits, plain)


def test_a_lite_starts_as_the_toast_of_its_decoders(tmp_path: Path) -> None:
    model = tiny_model()
    toast = lively_toast(model)
    toast.save_decoders(tmp_path / "decoders.safetensors")
    lite = TOAST(model, rank=2, decoders=tmp_path / "decoders.safetensors")
    torch.testing.assert_close(lite(tokens()).logits, toast(tokens()).logits)
    for own, other in zip(lite.decoders, toast.decoders, strict=True):
        assert weight_of(own.pass_on).equal(other.get_parameter("pass_on.weight"))


def test_the_backbone_stays_in_evaluation_mode() -> None:
    toast = lively_toast(tiny_model(attention_dropout=0.9)).train()
    first, second = (toast(tokens()).logits for _ in range(2))
    assert first.equal(second)
    assert toast.eval()(tokens()).logits.equal(first)


def test_skipped_pretuning_is_said_once(tmp_path: Path) -> None:
    model = tiny_model()
    toast = TOAST(model).train()
    with pytest.warns(UserWarning, match="not pre-tuned"):
        toast(tokens(), labels=tokens())
    lively_toast(model).save_decoders(tmp_path / "decoders.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        toast(tokens(), labels=tokens())
        TOAST(model, decoders=tmp_path / "decoders.safetensors").train()(tokens())
        pretuning = TOAST(model).train()
        pretuning.learn("decoders")
        pretuning(tokens(), labels=tokens())
    with pytest.raises(UserError, match="of labels, and found none; pass labels"):
        pretuning(tokens())


def test_a_lite_without_its_reconstruction_term_says_so_once() -> None:
    lite = TOAST(tiny_model(), rank=2)
    lite.pretuned = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lite(tokens())
        assert lite.train()(tokens(), labels=tokens()).reconstruction is not None
        with pytest.warns(UserWarning, match="reconstruction term too, .*; pass labels, and leave out"):
            assert lite(tokens()).reconstruction is None
        lite(tokens())


def test_the_model_moves_along_and_computes_in_half_precision() -> None:
    toast = lively_toast(tiny_model())
    logits = toast(tokens()).logits
    half = copy.deepcopy(toast).to(torch.bfloat16)
    assert half.backbone.dtype == half.task.dtype == torch.bfloat16
    assert (half(tokens()).logits - logits).abs().mean() < 0.2 * logits.abs().mean()
    mixed = lively_toast(tiny_model().to(torch.bfloat16)).train()  # adapters in fp32 on a model in bf16
    mixed(tokens(), labels=tokens()).loss.backward()
    assert mixed.task.grad is not None
    assert mixed.task.grad.dtype == torch.float32


def test_attention_maps_equal_those_by_hand() -> None:
    toast = lively_toast(tiny_model("Mistral"))
    maps = toast.attention_maps(tokens())
    assert toast.backbone.config._attn_implementation == "sdpa"
    for found, wanted in zip(
        maps, zip(*(toast_by_hand(toast, row) for row in tokens()), strict=True), strict=True
    ):
        by_hand = torch.stack(
            [torch.stack([torch.stack(heads) for heads in each.attention]) for each in wanted]
        )
        torch.testing.assert_close(found, by_hand.transpose(0, 1), rtol=1e-4, atol=1e-5)
    assert (maps[0] - maps[1]).abs().max() > 0.01


def test_threads_share_a_model() -> None:
    model = tiny_model()
    toasts = [lively_toast(model, seed=seed) for seed in (2, 3)]
    expected = [toast(tokens()).logits for toast in toasts]
    generated = toasts[0].generate(tokens(), max_new_tokens=5, do_sample=False)
    plain = model(tokens()).logits
    wrong = []

    def work(i: int) -> None:
        for _ in range(20):
            right = toasts[i](tokens()).logits.equal(expected[i]) and model(tokens()).logits.equal(plain)
            if not right or not toasts[0].generate(tokens(), max_new_tokens=5, do_sample=False).equal(
                generated
            ):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_it_does_not_take() -> None:
    model = tiny_model()
    with pytest.raises(UserError, match="rank must be 1 or more"):
        TOAST(model, rank=0)
    toast = TOAST(model)
    toast.pretuned = True
    with pytest.raises(UserError, match="past_key_values is a DynamicCache"):
        toast(tokens(), past_key_values=transformers.DynamicCache())
    with pytest.raises(UserError, match="leave cache_implementation out"):
        toast.generate(tokens(), cache_implementation="static")
    assert isinstance(toast(tokens()).past_key_values, TwoPassCache)
    assert toast(tokens(), use_cache=False).past_key_values is None
    assert toast.train()(tokens()).past_key_values is None
