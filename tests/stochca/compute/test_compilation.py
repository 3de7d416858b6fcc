"""Compiled blocks: the same numbers, a few graphs whatever is drawn, and plain models before and after."""

import copy
import dataclasses
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from stochca import StochCA
from stochca.compute.compilation import compiled_blocks
from stochca.config import Delta, Lora, Method, StochasticCrossAttention, Swad, Toast, Vpt
from stochca.errors import UserError
from stochca.training.inputs import Inputs, check_settings
from tests.stochca.timm_models.families.cases import CASES
from tests.stochca.timm_models.families.cases import images as two_images
from tests.stochca.tiny import EAGER, PREPROCESSING, tiny_vit
from tests.stochca.training.test_fit import Kill, Killed, assert_equal, run, settings

QUICK = ("vit",)  # tried whenever anything is
ONE_OF_EACH = {case.family: name for name, case in reversed(CASES.items())}.values()


@pytest.fixture(autouse=True)
def no_graphs_from_before() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def gradients(model: StochCA, images: Tensor, drawn: list[int]) -> dict[str, Tensor]:
    model.student.zero_grad()
    torch.manual_seed(0)  # some families drop out
    loss: Tensor = model(images, cross_blocks=drawn).square().sum()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.student.named_parameters() if p.grad is not None}


def graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in ONE_OF_EACH]
)
def test_outputs_and_gradients_are_those_of_eager_blocks(name: str) -> None:
    model = StochCA(CASES[name].model().train(), prob=0.5)
    images = two_images()
    draws: list[list[int]] = [[], list(range(model.num_blocks))]
    if name in QUICK:
        draws += [[0], [model.num_blocks - 1]]
    expected = [gradients(model, images, drawn) for drawn in draws]
    start = graphs()
    with compiled_blocks(model.student, model.teacher, EAGER):
        found = [gradients(model, images, drawn) for drawn in draws]
    assert graphs() > start
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            torch.testing.assert_close(ours[key], value, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("granularity", ["block", "sample"])
def test_no_draw_compiles_again(granularity: Any) -> None:
    model = StochCA(tiny_vit(depth=6).train(), prob=0.4, granularity=granularity)
    images = torch.randn(4, 3, 16, 16)
    start = graphs()
    with compiled_blocks(model.student, model.teacher, EAGER):
        for drawn in ([], [0, 5], [0, 2, 5]):  # whatever can be: plain, recorded, last
            model(images, cross_blocks=drawn).sum().backward()
        for _ in range(4):
            model(images).sum().backward()
        before = graphs()
        for _ in range(40):
            model(images).sum().backward()
    assert graphs() == before <= start + 12


def test_models_are_plain_afterwards_and_copies_are_their_own() -> None:
    model = StochCA(tiny_vit().train(), prob=0.5)
    names = list(model.student.state_dict())
    with compiled_blocks(model.student, model.teacher, EAGER):
        assert list(model.student.state_dict()) == names
        other = copy.deepcopy(model.student)
        nn.init.zeros_(model.student.blocks[0].attn.qkv.weight)
        images = torch.randn(2, 3, 16, 16)
        assert not torch.equal(other(images), model.student(images))  # the copy's blocks have its own weights
    for block in [*model.student.blocks, *model.teacher.blocks]:
        assert "forward" not in vars(block)


def test_evaluation_stays_eager() -> None:
    student = tiny_vit().eval()
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = student(images)
    before = graphs()
    with compiled_blocks(student, None, EAGER), torch.no_grad():
        assert torch.equal(student(images), expected)
        assert torch.equal(copy.deepcopy(student)(images), expected)
    assert graphs() == before


def test_copies_are_gone_when_nobody_has_them() -> None:
    """A copy is made at every evaluation of an adapter; on a GPU none may wait for the collector."""
    student = tiny_vit()
    gc.disable()
    try:
        with compiled_blocks(student, None, EAGER):
            copied = weakref.ref(copy.deepcopy(student).blocks[0])
            assert copied() is None
    finally:
        gc.enable()


def test_gradient_checkpointing_changes_nothing() -> None:
    model = StochCA(tiny_vit(depth=4).train(), prob=0.5)
    images = torch.randn(4, 3, 16, 16)
    expected = gradients(model, images, [1, 3])
    model.student.set_grad_checkpointing()
    with compiled_blocks(model.student, model.teacher, EAGER):
        found = gradients(model, images, [1, 3])
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("device", "words"),
    [("cpu", r"compiler g\+\+, which was not found"), ("cuda", "package triton|compiler gcc or clang")],
)
def test_what_it_needs(device: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("stochca.compute.compilation.CPU_COMPILER", "g++")
    with pytest.raises(UserError, match=rf"training\.compile true needs the ({words})"):
        check_settings(
            Inputs(
                tiny_vit(),
                [],
                [],
                method=Method(),
                settings=settings(compile=True),
                preprocessing=PREPROCESSING,
            ),
            torch.device(device),
        )


STOCHCA = StochasticCrossAttention(prob=0.5, teacher_precision="same")
METHODS = {
    "stochca+swad, teacher in bf16": (
        Method(
            attention=dataclasses.replace(STOCHCA, teacher_precision="bf16"),
            average=Swad(n_converge=2, n_tolerance=2),
        ),
        "fp32",
    ),
    "stochca+lora, bf16": (Method(attention=STOCHCA, adapter=Lora()), "bf16"),
    "delta": (Method(penalties=(Delta(),)), "fp32"),
    "vpt": (Method(adapter=Vpt(tokens=2)), "fp32"),
    "toast": (Method(adapter=Toast()), "fp32"),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", METHODS)
def test_trains_as_eagerly_and_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    method, precision = METHODS[name]
    options = settings(compile=True, precision=precision, drop_path=0.0)
    before = graphs()
    expected, fitted = run(method, options)
    assert graphs() > before
    eager, _ = run(method, settings(precision=precision, drop_path=0.0))
    start = tiny_vit().state_dict()
    moved = {key: (expected[key] - start[key]).norm() for key in start if key in expected}
    apart = {key: (expected[key] - eager[key]).norm() for key in moved}
    # Roundings differ, and grow from step to step, but not to a third of the way that training went.
    assert sum(apart.values()) < (0.02 if precision == "fp32" else 0.3) * sum(moved.values())
    assert fitted.validation is not None
    with pytest.raises(Killed):
        run(method, options, tmp_path, Kill(7))
    torch.compiler.reset()
    assert_equal(run(method, options, tmp_path)[0], expected)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_stochastic_depth_resumes_bit_for_bit(tmp_path: Path) -> None:
    """Whose random numbers compiled code draws."""
    method, options = Method(attention=STOCHCA), settings(compile=True, drop_path=0.3)
    expected, _ = run(method, options)
    with pytest.raises(Killed):
        run(method, options, tmp_path, Kill(7))
    torch.compiler.reset()
    assert_equal(run(method, options, tmp_path)[0], expected)
