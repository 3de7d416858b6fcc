from typing import Any

import pytest
import torch

from stochca.attention.teacher import teacher_keys_values
from stochca.compute.devices import default_device
from stochca.compute.precision import autocast, choose_attention_kernel, resolve_precision, store_in_half
from stochca.config import Method, StochasticCrossAttention, build
from stochca.errors import UserError
from stochca.timm_models.families import block_names
from stochca.training.composition import compose, settled_teacher
from tests.stochca.timm_models.families.cases import CASES, images
from tests.stochca.tiny import tiny_vit

CPU = torch.device("cpu")


@pytest.mark.parametrize("native", [True, False])
def test_auto_takes_bf16_where_the_cpu_has_it(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    capabilities = {"avx512_bf16": native, "amx_bf16": False, "avx512_f": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolve_precision("auto", CPU) == ("bf16" if native else "fp32")
    assert resolve_precision("fp32", CPU) == "fp32"


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_on_gpus(capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_precision("auto", torch.device("cuda")) == expected


def cpu_has_bf16(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    capabilities = {"avx512_bf16": False, "amx_bf16": native}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


@pytest.mark.parametrize("native", [True, False])
def test_auto_takes_a_bf16_teacher_where_the_cpu_has_it(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu_has_bf16(native, monkeypatch)
    assert StochasticCrossAttention().teacher_precision == "auto"
    expected: list[tuple[Any, bool]] = [("same", False), ("auto", native), ("bf16", True)]
    for wanted, in_bf16 in expected:
        config = StochasticCrossAttention(teacher_precision=wanted)
        model, student = compose(Method(attention=config), tiny_vit())
        teacher = settled_teacher(model, "fp32", CPU)
        assert teacher is not None
        for block, own in zip(teacher.blocks, student.blocks, strict=True):
            assert block.attn.qkv.weight.dtype == (torch.bfloat16 if in_bf16 else torch.float32)
            assert block.attn.fused_attn is not in_bf16
            assert own.attn.qkv.weight.dtype == torch.float32
            assert own.attn.fused_attn


@pytest.mark.parametrize(
    ("wanted", "student", "teacher"),
    [
        ("auto", "fp32", "bf16"),
        ("auto", "bf16", None),
        ("auto", "fp16", None),
        ("same", "fp32", None),
        ("bf16", "fp16", "bf16"),
    ],
)
def test_the_teacher_of_a_student_in_half_precision_computes_as_it_does(
    wanted: Any, student: str, teacher: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu_has_bf16(True, monkeypatch)
    config = StochasticCrossAttention(teacher_precision=wanted)
    attending = build(config)
    assert attending.teacher_precision(student, CPU) == teacher
    notes = attending.notes(student, CPU)
    assert [f"The teacher computed in {teacher}" in note for note in notes] == [True] * (teacher is not None)


def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(UserError, match="fp16 needs a GPU; choose auto, fp32 or bf16"):
        resolve_precision("fp16", CPU)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_computes_in_the_precision(precision: str, dtype: torch.dtype) -> None:
    with autocast(precision, CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_both_attention_kernels_give_the_same_logits() -> None:
    model = tiny_vit().eval()
    images = torch.randn(2, 3, 16, 16)
    logits = []
    for precision, fused in (("fp32", True), ("bf16", False)):
        choose_attention_kernel(model, precision, CPU)
        assert all(block.attn.fused_attn is fused for block in model.blocks)
        logits.append(model(images))
    torch.testing.assert_close(logits[0], logits[1])


def test_a_cuda_build_without_a_gpu_runs_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._C, "_accelerator_getAccelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert default_device() == CPU


def test_timms_own_switch_stays_off() -> None:
    model = tiny_vit()
    model.blocks[0].attn.fused_attn = False
    choose_attention_kernel(model, "fp32", CPU)
    assert not model.blocks[0].attn.fused_attn


@pytest.mark.parametrize("name", CASES)
def test_projections_in_half_give_the_same_keys_and_values(name: str) -> None:
    teacher = CASES[name].model()
    drawn: dict[int, torch.Tensor | None] = {0: None, len(block_names(teacher)) - 1: None}
    numbers = []
    for precision in ("fp32", "bf16"):
        store_in_half(teacher, precision)
        with autocast("bf16", CPU):
            numbers.append(teacher_keys_values(teacher, images(), drawn))
    assert any(parameter.dtype == torch.bfloat16 for parameter in teacher.parameters())
    for i in drawn:
        for before, after in zip(numbers[0][i], numbers[1][i], strict=True):
            assert torch.equal(before.key_BND, after.key_BND)
            assert torch.equal(before.value_BND, after.value_BND)
