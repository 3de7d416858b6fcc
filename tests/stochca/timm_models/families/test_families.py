"""StochCA on every supported family: the properties that `test_cross_attention.py` checks on a plain ViT."""

import copy

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import stochca
from stochca._typing import TimmModule
from stochca.analysis import block_features
from stochca.attention.teacher import teacher_keys_values
from stochca.timm_models.families import FAMILIES, family_of
from stochca.timm_models.projections import attention_layers
from stochca.timm_models.support import check_supported
from tests.stochca.attention.test_stochca import Counter, assert_same_gradients, gradients
from tests.stochca.timm_models.families.cases import CASES, Case, images
from tests.stochca.timm_models.families.slow_attention import slow_stochca

every_family = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def pair(case: Case) -> tuple[TimmModule, TimmModule]:
    return case.model(0), case.model(1)


@every_family
def test_equals_the_slow_reference(case: Case) -> None:
    student, teacher = pair(case)
    model = stochca.StochCA(student, teacher=copy.deepcopy(teacher))
    last = model.num_blocks - 1
    assert model.num_blocks == len(case.blocks(student))
    for blocks in ([0], [last], [*range(last + 1)]):
        found = model(images(), cross_blocks=blocks)
        expected = slow_stochca(case, student, teacher, images(), [set(blocks)] * 2)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found, student(images()), rtol=1e-3, atol=1e-4)  # the teacher matters
    assert_same_gradients(
        gradients(student, found.square().sum()), gradients(student, expected.square().sum()), 2e-3
    )


@every_family
def test_the_teacher_may_compute_in_bf16(case: Case) -> None:
    """It gives what it would give under autocast by itself; the student's numbers stay in fp32."""
    student, teacher = pair(case)
    model = stochca.StochCA(student, teacher=copy.deepcopy(teacher), teacher_precision="bf16")
    drawn: dict[int, Tensor | None] = dict.fromkeys(range(model.num_blocks))
    with torch.autocast("cpu", torch.bfloat16):
        expected = teacher_keys_values(teacher, images(), drawn)
    for i, sources in model._keys_values(images(), drawn).items():
        for source, by_itself in zip(sources, expected[i], strict=True):
            assert source.key_BND.dtype == source.value_BND.dtype == torch.float32
            assert torch.equal(source.key_BND, by_itself.key_BND.float())
            assert torch.equal(source.value_BND, by_itself.value_BND.float())
    output = model(images(), cross_blocks=drawn)
    assert output.dtype == torch.float32
    assert all(gradient.dtype == torch.float32 for gradient in gradients(student, output.sum()).values())


@every_family
def test_images_may_draw_by_themselves(case: Case) -> None:
    student, teacher = pair(case)
    model = stochca.StochCA(student, 0.5, teacher=copy.deepcopy(teacher), granularity="sample")
    model.training = True  # draws; the student itself stays in evaluation mode
    model.generator.manual_seed(0)
    drawn = model.draw(3)
    crossed = [{i for i, chosen in drawn.items() if chosen is not None and chosen[b]} for b in range(3)]
    assert len({frozenset(blocks) for blocks in crossed}) > 1  # the images really differ
    model.generator.manual_seed(0)
    found = model(images(3))
    expected = slow_stochca(case, student, teacher, images(3), crossed)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert_same_gradients(
        gradients(student, found.square().sum()), gradients(student, expected.square().sum()), 2e-3
    )


@every_family
def test_evaluation_and_weights_are_plain_timms(case: Case) -> None:
    student, teacher = pair(case)
    plain = case.model(0)
    names = list(plain.state_dict())
    model = stochca.StochCA(student, 1.0, teacher=teacher).train()
    model(images()).sum().backward()
    assert list(student.state_dict()) == names
    plain.load_state_dict(student.state_dict(), strict=True)  # the running statistics of batch norms moved
    model.eval()
    assert torch.equal(model(images()), plain(images()))
    assert {id(p) for p in model.parameters()} == {id(p) for p in student.parameters()}


@every_family
def test_every_parameter_gets_a_gradient_whatever_is_drawn(case: Case) -> None:
    """As data-parallel training needs it."""
    student, teacher = pair(case)
    model = stochca.StochCA(student, teacher=teacher)
    student(images()).sum().backward()
    expected = {name for name, p in student.named_parameters() if p.grad is not None}
    for blocks in ([0], [*range(model.num_blocks)]):
        student.zero_grad()
        model(images(), cross_blocks=blocks).sum().backward()
        assert {name for name, p in student.named_parameters() if p.grad is not None} == expected


@every_family
def test_gradient_checkpointing_changes_nothing(case: Case) -> None:
    student, teacher = pair(case)
    model = stochca.StochCA(student, teacher=teacher)
    expected = gradients(student, model(images(), cross_blocks=[0, 1]).square().sum())
    student.set_grad_checkpointing(True)
    output = model(images(), cross_blocks=[0, 1])
    model(images(), cross_blocks=[model.num_blocks - 1])  # must not leak into the backward pass
    found = gradients(student, output.square().sum())
    assert_same_gradients(found, expected, 1e-5)


@every_family
def test_copies_draw_and_compute_the_same(case: Case) -> None:
    student, teacher = pair(case)
    model = stochca.StochCA(student, 0.5, teacher=teacher)
    other = copy.deepcopy(model)
    for wrapped in (model, other):
        wrapped.training = True
    expected = [model(images()) for _ in range(3)]
    assert other.teacher is not model.teacher
    assert all(torch.equal(other(images()), value) for value in expected)


@every_family
def test_teacher_runs_only_as_far_as_the_deepest_block(case: Case) -> None:
    student, teacher = pair(case)
    names = {module: name for name, module in teacher.named_modules()}
    blocks = case.blocks(teacher)
    counter = Counter(teacher)
    model = stochca.StochCA(student, teacher=teacher)
    model(images(), cross_blocks=[1])
    deepest = attention_layers(blocks[1])[-1]
    assert counter.calls[names[blocks[0]]] == 1
    assert counter.calls[names[deepest]] == 1
    assert names[deepest.proj] not in counter.calls
    for block in blocks[2:]:
        assert names[block] not in counter.calls


def multiplications(run: object) -> int:
    with FlopCounterMode(display=False) as counter:
        run()  # type: ignore[operator]
    return counter.get_total_flops()


@every_family
def test_drawn_block_computes_only_the_students_queries(case: Case) -> None:
    """A drawn layer multiplies as often as its plain self, less its keys and values."""
    student, teacher = pair(case)
    model = stochca.StochCA(student, teacher=teacher)
    layers = attention_layers(case.blocks(student)[1])
    sizes: dict[nn.Module, Tensor] = {}
    for layer in layers:
        layer.register_forward_pre_hook(lambda layer, x: sizes.update({layer: x[0]}))
    plain = multiplications(lambda: student(images()))
    own = 0
    for layer in layers:
        weights = [layer.qkv.weight] if layer.qkv is not None else [layer.k_proj.weight, layer.v_proj.weight]
        share = 2 / 3 if layer.qkv is not None else 1
        tokens = sizes[layer].numel() // weights[0].shape[1]
        own += round(2 * tokens * share * sum(weight.numel() for weight in weights))
    of_teacher = multiplications(lambda: _run_teacher(model))
    crossed = multiplications(lambda: model(images(), cross_blocks=[1]))
    assert crossed - of_teacher == plain - own


def _run_teacher(model: stochca.StochCA) -> None:
    from stochca.attention.teacher import teacher_keys_values

    teacher_keys_values(model.teacher, images(), {1: None})


@every_family
def test_teachers_copy_stores_nothing_unused(case: Case) -> None:
    student = case.model()
    last = attention_layers(case.blocks(student)[-1])[-1]
    names = {module: name for name, module in student.named_modules()}
    left = set(stochca.StochCA(student).teacher.state_dict())
    assert f"{names[last.proj]}.weight" not in left
    assert not any(name.startswith(("head.", "norm.", "fc_norm.")) for name in left)
    assert set(student.state_dict()) >= left


@every_family
def test_its_own_teacher_changes_nothing_at_the_start(case: Case) -> None:
    """Keys and values of a copy are the student's own: cross-attention then is self-attention."""
    student = case.model()
    model = stochca.StochCA(student)
    found = model(images(), cross_blocks=range(model.num_blocks))
    torch.testing.assert_close(found, student(images()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["vit", "dinov3", "swin"])
def test_an_adapter_around_the_projection_is_part_of_it(name: str) -> None:
    """As if the adapter's update were in the weights."""
    peft = pytest.importorskip("peft")
    student, teacher = pair(CASES[name])
    model = stochca.StochCA(copy.deepcopy(student), teacher=copy.deepcopy(teacher))
    settings = peft.LoraConfig(r=2, target_modules=r".*attn\.qkv", init_lora_weights=False)
    adapted = peft.inject_adapter_in_model(settings, model.student)
    with torch.no_grad():
        for name, layer in student.named_modules():
            if name.endswith("attn.qkv"):
                layer.weight += adapted.get_submodule(name).get_delta_weight("default")
    expected = stochca.StochCA(student, teacher=teacher)(images(), cross_blocks=[1])
    torch.testing.assert_close(model(images(), cross_blocks=[1]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["sam", "swin", "swin v2, christoph reich", "maxvit", "coatnet"])
def test_features_of_every_block_are_means_over_its_positions(name: str) -> None:
    model = CASES[name].model()
    blocks = CASES[name].blocks(model)
    outputs: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda _, __, y: outputs.append(y.detach())) for block in blocks]
    model(images())
    for hook in hooks:
        hook.remove()
    positions = (2, 3) if name in ("maxvit", "coatnet") else (1, 2)
    found = block_features(model, images())
    assert len(found) == len(blocks)
    for (first, mean), output in zip(found, outputs, strict=True):
        torch.testing.assert_close(mean, output.mean(positions))
        assert torch.equal(first, mean)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_example_of_timm_is_supported(case: Case) -> None:
    with torch.device("meta"):
        model = timm.create_model(case.example)
    check_supported(model)
    assert family_of(model).model is family_of(case.create()).model


def test_every_family_is_tested() -> None:
    assert {family_of(case.create()).model for case in CASES.values()} == {
        family.model for family in FAMILIES
    }


@pytest.mark.parametrize("name", ["resnet18", "mixer_s16_224", "xcit_nano_12_p8_224", "mvitv2_tiny"])
def test_other_models_are_refused_by_name(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(stochca.UserError, match=type(model).__name__) as error:
        stochca.StochCA(model)
    for family in FAMILIES:
        assert family.names in str(error.value)


def test_teachers_of_another_shape_are_refused() -> None:
    swin, other = CASES["swin"].model(), CASES["swin, padded windows"].model()
    with pytest.raises(stochca.UserError, match=r"layers\.0\.blocks\.0\.attn\.relative_position"):
        stochca.StochCA(swin, teacher=other)
    v2 = CASES["swin v2"]
    with pytest.raises(
        stochca.UserError, match="the model is SwinTransformerV2 in the teacher, SwinTransformer in"
    ):
        stochca.StochCA(swin, teacher=v2.model())
