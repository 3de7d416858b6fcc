"""LoRA, VPT and TOAST on every family: the properties that `tests/stochca/adapters` checks on a plain ViT."""

import copy
import pickle
from typing import Any

import pytest
import torch
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_relpos import VisionTransformerRelPos

import stochca
from stochca._typing import TimmModule
from stochca.config import Lora, Method, StochasticCrossAttention, Toast, ToastLite, Vpt, build
from stochca.timm_models.projections import attention_layers
from stochca.training.composition import compose
from tests.stochca.attention.test_stochca import assert_same_gradients, gradients
from tests.stochca.timm_models.families.cases import CASES, Case, images
from tests.stochca.timm_models.families.slow_adapters import slow_toast, slow_vpt

SEQUENCES = (VisionTransformer, Eva, Beit, VisionTransformerRelPos)
SEQUENCE_CASES = {name: case for name, case in CASES.items() if issubclass(case.create.func, SEQUENCES)}  # type: ignore[attr-defined]
OTHER_CASES = {name: case for name, case in CASES.items() if name not in SEQUENCE_CASES}

every_family = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_sequence = pytest.mark.parametrize("case", SEQUENCE_CASES.values(), ids=SEQUENCE_CASES)


def enlivened(model: Any, parts: tuple[str, ...]) -> Any:
    """What an adapter adds made large enough to matter."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in parts):
                parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return model


def vpt(case: Case, deep: bool = True) -> Any:
    return enlivened(stochca.VPT(case.model(), tokens=2, deep=deep), ("prompts",)).eval()


def toast(case: Case) -> Any:
    return enlivened(stochca.TOAST(case.model()), ("decoders", "task", "transform")).eval()


def lora(case: Case, **choices: Any) -> tuple[Any, TimmModule]:
    torch.manual_seed(0)
    student = case.model()
    method = Method(adapter=Lora(rank=2), **choices)
    build(method.adapter).check(student)
    return compose(method, student)


def learning(model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


def head_of(backbone: TimmModule, prefix: str = "") -> set[str]:
    return {
        f"{prefix}{name}" for name, _ in backbone.named_parameters() if name in ("head.weight", "head.bias")
    }


@every_sequence
@pytest.mark.parametrize("deep", [True, False])
def test_prompts_equal_the_slow_reference(case: Case, deep: bool) -> None:
    model = vpt(case, deep)
    found = model(images())
    expected = slow_vpt(model.backbone, model.prompts, images())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, model.backbone(images()), rtol=1e-3, atol=1e-4)  # prompts matter
    assert_same_gradients(
        gradients(model, found.square().sum()), gradients(model, expected.square().sum()), 2e-3
    )


@every_sequence
def test_top_down_attention_equals_the_slow_reference(case: Case) -> None:
    model = toast(case)
    found = model(images())
    expected = slow_toast(model, images())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, model.backbone(images()), rtol=1e-3, atol=1e-4)  # the signal matters
    assert_same_gradients(
        gradients(model, found.square().sum()), gradients(model, expected.square().sum()), 2e-3
    )


@every_sequence
@pytest.mark.parametrize("make", [vpt, toast])
def test_the_backbone_is_unchanged_and_gradients_are_only_where_something_learns(
    case: Case, make: Any
) -> None:
    model = make(case)
    added = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    added -= head_of(model.backbone, "backbone.")
    assert {name.split(".")[0] for name in added} == ({"prompts"} if make is vpt else {"decoders", "task"})
    first = model(images())
    model.train()
    output = model(images())
    assert torch.equal(output, first)  # the backbone stays in evaluation mode
    output.square().sum().backward()
    assert learning(model) == added | head_of(model.backbone, "backbone.")
    assert all(model.get_parameter(name).grad.any() for name in added)
    plain = case.model().requires_grad_(False)
    state = model.backbone.state_dict()
    assert state.keys() == plain.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())
    with torch.no_grad():
        assert torch.equal(model.backbone(images()), plain(images()))
    assert torch.equal(model.eval()(images()), first)
    assert torch.equal(pickle.loads(pickle.dumps(model))(images()), first)


@every_sequence
@pytest.mark.parametrize("make", [vpt, toast])
def test_gradient_checkpointing_changes_nothing(case: Case, make: Any) -> None:
    model = make(case).train()
    expected = gradients(model, model(images()).square().sum())
    model.set_grad_checkpointing(True)
    assert_same_gradients(gradients(model, model(images()).square().sum()), expected, 1e-5)


@every_family
def test_updates_start_at_nothing_and_each_layers_matters(case: Case) -> None:
    _, student = lora(case)
    found = student.eval()(images())
    torch.testing.assert_close(found, case.model()(images()), rtol=1e-5, atol=1e-6)
    found.square().sum().backward()
    ups = [parameter for name, parameter in student.named_parameters() if "lora_B" in name]
    layers = [layer for block in case.blocks(student) for layer in attention_layers(block)]
    assert len(ups) == sum(3 if layer.qkv is None else 1 for layer in layers)
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in ups)


@every_family
def test_updates_learn_and_merge_into_a_plain_model(case: Case) -> None:
    _, student = lora(case)
    enlivened(student, ("lora_",)).eval()
    student(images()).square().sum().backward()
    updates = {name for name, _ in student.named_parameters() if "lora_" in name}
    assert {name for name in learning(student) if not name.startswith("head.")} == updates
    assert all(student.get_parameter(name).grad.any() for name in updates)
    with torch.no_grad():
        expected = student(images())
        assert not torch.allclose(expected, case.model()(images()), rtol=1e-3, atol=1e-4)
    train = build(Lora())
    for merged in (train.plain(student), train.finish(student)):
        plain = case.model().requires_grad_(False)
        plain.load_state_dict(merged.state_dict())  # every name is where timm has it
        with torch.no_grad():
            torch.testing.assert_close(plain(images()), expected, rtol=1e-4, atol=1e-5)
            assert torch.equal(merged(images()), plain(images()))


@pytest.mark.parametrize("name", ["beit", "eva", "eva02", "swin v2", "coatnet"])
def test_stochca_takes_queries_from_updated_weights(name: str) -> None:
    case = CASES[name]
    model, student = lora(case, attention=StochasticCrossAttention(prob=0.5, teacher_precision="same"))
    assert isinstance(model, stochca.StochCA)
    enlivened(student, ("lora_",))
    plain = build(Lora()).plain(student)
    by_hand = stochca.StochCA(plain, teacher=case.model()).eval()
    found = model.eval()(images(), cross_blocks=[0, 1])
    torch.testing.assert_close(found, by_hand(images(), cross_blocks=[0, 1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", OTHER_CASES.values(), ids=OTHER_CASES)
def test_what_is_no_sequence_is_refused_by_name(case: Case) -> None:
    student = case.model()
    before = copy.deepcopy(student.state_dict())
    sentence = f"^(VPT|TOAST) does not support {type(student).__name__}: its blocks .*; supported are timm's"
    for train in (Vpt(), Toast(), ToastLite()):
        with pytest.raises(stochca.UserError, match=sentence):
            build(train).check(student)
        with pytest.raises(stochca.UserError, match=sentence):
            build(train).adapt(student)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert all(parameter.requires_grad for parameter in student.parameters())
