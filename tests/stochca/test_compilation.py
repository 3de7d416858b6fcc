"""Compiled blocks: the same numbers, a few graphs whatever is drawn, and plain models before and after."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from stochca import StochCA
from stochca.compilation import compiled_blocks
from stochca.errors import UserError
from stochca.methods import Delta, Lora, Method, StochasticCrossAttention, Swad
from stochca.training import check_settings
from tests.stochca.families.cases import CASES
from tests.stochca.families.cases import images as two_images
from tests.stochca.test_training import Kill, Killed, assert_equal, run, settings
from tests.stochca.tiny import PREPROCESSING, tiny_vit

QUICK = ("vit", "swin")  # tried whenever anything is
EAGER = "aot_eager"  # finds and guards the graphs as inductor has them, and runs them without a compiler


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
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in CASES]
)
def test_outputs_and_gradients_are_those_of_eager_blocks(name: str) -> None:
    model = StochCA(CASES[name].model().train(), prob=0.5)
    images = two_images()
    draws: list[list[int]] = [[], [0], [model.num_blocks - 1], list(range(model.num_blocks))]
    expected = [gradients(model, images, drawn) for drawn in draws]
    start = graphs()
    with compiled_blocks(model.student, model.teacher, EAGER):
        found = [gradients(model, images, drawn) for drawn in draws]
    assert graphs() > start
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            torch.testing.assert_close(ours[key], value, rtol=1e-3, atol=1e-5)


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
    expected = student(images)
    before = graphs()
    with compiled_blocks(student, None, EAGER):
        assert torch.equal(student(images), expected)
    assert graphs() == before


def test_what_a_cpu_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"training\.compile true needs a C\+\+ compiler"):
        check_settings(tiny_vit(), Method(), settings(compile=True), PREPROCESSING, torch.device("cpu"))


METHODS: dict[str, Callable[[], Method]] = {
    "stochca+swad": lambda: Method(
        attention=StochasticCrossAttention(prob=0.5), average=Swad(n_converge=2, n_tolerance=2)
    ),
    "delta": lambda: Method(penalties=(Delta(),)),
    "lora": lambda: Method(train=Lora()),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", METHODS)
def test_trains_as_eagerly_and_resumes_bit_for_bit(name: str, precision: str, tmp_path: Path) -> None:
    method = METHODS[name]()
    options = settings(compile=True, precision=precision, drop_path=0.0)
    expected, fitted = run(method, options)
    eager, _ = run(method, settings(precision=precision, drop_path=0.0))
    start = tiny_vit().state_dict()
    moved = {key: (expected[key] - start[key]).norm() for key in start if key in expected}
    apart = {key: (expected[key] - eager[key]).norm() for key in moved}
    # Roundings differ, and grow from step to step: but not to a tenth of the way that training went.
    assert sum(apart.values()) < (0.02 if precision == "fp32" else 0.3) * sum(moved.values())
    assert fitted.validation is not None
    with pytest.raises(Killed):
        run(method, options, tmp_path, Kill(7))
    torch.compiler.reset()
    assert_equal(run(method, options, tmp_path)[0], expected)
