import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers.diff_attention import DiffAttention
from timm.models import create_model
from timm.models.vision_transformer import ParallelThingsBlock, ResPostBlock, VisionTransformer
from torch import Tensor, nn
from torch._dynamo.utils import counters

import stochca
from tests.stochca.slow_reference import slow_stochca

VARIANTS: dict[str, dict[str, Any]] = {
    "class token": {},
    "no class token": {"class_token": False, "global_pool": "avg"},
    "average pooling": {"global_pool": "avg"},
    "attention pooling": {"class_token": False, "global_pool": "map"},
    "register tokens": {"reg_tokens": 2, "no_embed_class": True},
    "query and key norm": {"qk_norm": True},
    "layer scale": {"init_values": 0.5},
    "no qkv bias": {"qkv_bias": False},
    "pre-norm of CLIP": {"pre_norm": True},
    "post-norm blocks": {"block_fn": ResPostBlock},
    "parallel blocks": {"block_fn": ParallelThingsBlock},
    "differential attention": {"attn_layer": DiffAttention},
    "scaled attention norm": {"scale_attn_norm": True},
}


def vit(depth: int = 4, **options: Any) -> VisionTransformer:
    defaults: dict[str, Any] = {
        "img_size": 16,
        "patch_size": 8,
        "embed_dim": 16,
        "num_heads": 2,
        "num_classes": 5,
    }
    model = VisionTransformer(**{**defaults, "depth": depth, **options})
    # Away from the flat start, so that a wrong norm or a swapped key shows.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def student_and_teacher(**options: Any) -> tuple[VisionTransformer, VisionTransformer]:
    torch.manual_seed(0)
    return vit(**options), vit(**options).eval()


def images(number: int = 3) -> Tensor:
    return torch.randn(number, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    for name, shape in {**found, **expected}.items():
        # A parameter that was never reached has the gradient 0.
        ours, theirs = (known.get(name, torch.zeros_like(shape)) for known in (found, expected))
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("blocks", [[], [0], [3], [1, 2], [0, 1, 2, 3]], ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_slow_reference(variant: str, blocks: list[int]) -> None:
    student, teacher = student_and_teacher(**VARIANTS[variant])
    model = stochca.StochCA(student, teacher=copy.deepcopy(teacher))
    found = model(images(), cross_blocks=blocks)
    expected = slow_stochca(student, teacher, images(), [set(blocks)] * 3)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert_same_gradients(
        gradients(student, found.square().sum()), gradients(student, expected.square().sum()), 2e-3
    )


@pytest.mark.parametrize("blocks", [[0], [1, 3]], ids=str)
def test_equals_the_slow_reference_in_bfloat16(blocks: list[int]) -> None:
    student, teacher = student_and_teacher()
    model = stochca.StochCA(student, teacher=copy.deepcopy(teacher))
    expected = slow_stochca(student, teacher, images(), [set(blocks)] * 3)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(images(), cross_blocks=blocks)
        wrong = model(images(), cross_blocks=[2])
    scale = expected.abs().max()
    assert (found - expected).abs().max() < 0.05 * scale
    assert (wrong - expected).abs().max() > 0.1 * scale  # the tolerance tells blocks apart
    found_gradients = gradients(student, found.float().square().sum())
    for name, gradient in gradients(student, expected.square().sum()).items():
        if name in found_gradients and gradient.norm() > 1e-3:
            difference = (found_gradients[name] - gradient).norm() / gradient.norm()
            assert difference < 0.15, (name, difference)


def test_a_teacher_in_bfloat16_is_close_to_one_in_fp32() -> None:
    student, teacher = student_and_teacher()
    model = stochca.StochCA(student, teacher=copy.deepcopy(teacher), teacher_precision="bf16")
    for name, weights in model.teacher.named_parameters():
        assert weights.dtype == (torch.float32 if "norm" in name else torch.bfloat16) or weights.dim() != 2
    expected = slow_stochca(student, teacher, images(), [{0, 3}] * 3)
    found = model(images(), cross_blocks=[0, 3])
    assert not torch.equal(found, expected)
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()
    # Where the student computes in half precision, it gets what it computes in.
    with torch.autocast("cpu", torch.float16):
        sources = model._keys_values(images(), {2: None})[2]
    assert sources[0].key_BND.dtype == sources[0].value_BND.dtype == torch.float16


def test_the_teacher_matters() -> None:
    student, teacher = student_and_teacher()
    model = stochca.StochCA(student, teacher=teacher)
    assert not torch.allclose(model(images(), cross_blocks=[1]), student(images()), atol=1e-2)


def test_sample_granularity_equals_the_slow_reference() -> None:
    for options in list[dict[str, Any]]([{}, {"qk_norm": True}]):
        student, teacher = student_and_teacher(**options)
        model = stochca.StochCA(student, 0.5, teacher=copy.deepcopy(teacher), granularity="sample")
        model.generator.manual_seed(3)
        drawn = model.draw(3)
        crossed = [{i for i, chosen in drawn.items() if chosen is not None and chosen[b]} for b in range(3)]
        assert len({frozenset(blocks) for blocks in crossed}) > 1  # the images really differ
        model.generator.manual_seed(3)
        found = model.train()(images())
        expected = slow_stochca(student, teacher, images(), crossed)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert_same_gradients(
            gradients(student, found.square().sum()), gradients(student, expected.square().sum()), 2e-3
        )


def test_draws_follow_the_probabilities() -> None:
    model = stochca.StochCA(vit(), [0.0, 0.1, 0.5, 1.0], generator=torch.Generator().manual_seed(0))
    counts = torch.zeros(4)
    for _ in range(2000):
        for block in model.draw(8):
            counts[block] += 1
    shares = counts / 2000
    assert shares[0] == 0
    assert shares[3] == 1
    assert abs(shares[1] - 0.1) < 0.03
    assert abs(shares[2] - 0.5) < 0.05


def test_equal_generators_draw_equal_blocks() -> None:
    first, second = (
        stochca.StochCA(vit(), 0.5, generator=torch.Generator().manual_seed(7)) for _ in range(2)
    )
    assert [first.draw(1) for _ in range(20)] == [second.draw(1) for _ in range(20)]


@pytest.mark.parametrize("drop", [0.0, 0.3])
def test_probability_zero_is_plain_fine_tuning(drop: float) -> None:
    losses = []
    for wrap in (lambda model: model, lambda model: stochca.StochCA(model, prob=0.0)):
        torch.manual_seed(0)
        student = vit(proj_drop_rate=drop, drop_path_rate=drop)
        model = wrap(student).train()
        optimizer = torch.optim.AdamW(student.parameters(), lr=1e-2)
        trace = []
        for _ in range(4):
            loss = model(images()).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            trace.append(loss.item())
        losses.append((trace, student.state_dict()))
    assert losses[0][0] == losses[1][0]
    assert all(torch.equal(losses[0][1][name], value) for name, value in losses[1][1].items())


def test_evaluation_is_exactly_the_student() -> None:
    student, teacher = student_and_teacher()
    model = stochca.StochCA(student, 1.0, teacher=teacher).eval()
    assert torch.equal(model(images()), student(images()))


class Counter:
    """Counts the calls of a model's parts during one forward pass."""

    def __init__(self, model: nn.Module) -> None:
        self.calls: dict[str, int] = {}
        for name, module in model.named_modules():
            module.register_forward_pre_hook(self._counting(name))

    def _counting(self, name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            self.calls[name] = self.calls.get(name, 0) + 1

        return hook


def test_teacher_runs_only_as_far_as_needed() -> None:
    student, teacher = student_and_teacher()
    counter = Counter(teacher)
    model = stochca.StochCA(student, 0.0, teacher=teacher).train()
    model(images())
    assert counter.calls == {}  # nothing drawn, nothing run
    model(images(), cross_blocks=[0, 2])
    assert counter.calls["blocks.1"] == 1
    assert counter.calls["blocks.1.mlp"] == 1
    assert counter.calls["blocks.2.norm1"] == 1
    for untouched in ("blocks.2.attn.proj", "blocks.2.mlp", "blocks.3", "norm", "head"):
        assert untouched not in counter.calls


def test_drawn_block_computes_only_queries() -> None:
    """Counts the multiply-adds of the two models' projections: 3 thirds plain, 1 for a drawn student."""
    from torch.utils.flop_counter import FlopCounterMode

    def operations(model: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter:
            model()
        return counter.get_total_flops()

    student, teacher = student_and_teacher(depth=1)
    model = stochca.StochCA(student, teacher=teacher)
    plain = operations(lambda: student(images()))
    crossed = operations(lambda: model(images(), cross_blocks=[0]))
    tokens, dim, number = 5, 16, 3
    third = 2 * number * tokens * dim * dim
    patches = 2 * number * 4 * dim * 3 * 8 * 8
    # The student saves two thirds of its projection; the teacher embeds and computes just these two thirds.
    assert crossed == plain - 2 * third + patches + 2 * third


def test_state_dict_is_the_plain_models() -> None:
    student = vit()
    names = list(student.state_dict())
    model = stochca.StochCA(student, 0.5).train()
    model(images()).sum().backward()
    assert list(model.student.state_dict()) == names
    assert {name.removeprefix("student.") for name in model.state_dict()} == {*names, "_extra_state"}
    other = vit()
    other.load_state_dict(model.student.state_dict(), strict=True)
    assert torch.equal(other.eval()(images()), model.eval()(images()))
    model.student.load_state_dict(vit().state_dict(), strict=True)
    assert type(model.student.blocks[0].attn.qkv) is nn.Linear


def test_teacher_is_out_of_sight_and_frozen() -> None:
    student = vit(drop_path_rate=0.5)
    model = stochca.StochCA(student, 1.0).train()
    assert not model.teacher.training
    assert {id(p) for p in model.parameters()} == {id(p) for p in student.parameters()}
    model(images()).sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())
    before = {name: value.clone() for name, value in model.teacher.state_dict().items()}
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(before[name], value) for name, value in model.teacher.state_dict().items())
    with pytest.raises(
        stochca.UserError, match="the teacher of a StochCA can't be replaced; make a new StochCA"
    ):
        model.teacher = vit()  # type: ignore[misc]
    model.teacher.train()  # as an owner does that trains all it has
    model(images())
    assert not any(part.training for part in model.teacher.modules())
    assert model.to(torch.float64).teacher.blocks[0].attn.qkv.weight.dtype == torch.float64


def test_teachers_copy_stores_nothing_unused() -> None:
    names = set(stochca.StochCA(vit()).teacher.state_dict())
    assert not {
        name for name in names if name.startswith(("head.", "norm.", "blocks.3.mlp.", "blocks.3.attn.proj."))
    }
    assert "blocks.2.mlp.fc1.weight" in names


def test_what_watches_the_student_does_not_watch_the_teachers_copy() -> None:
    student, seen = vit(), []
    student.blocks[0].register_forward_hook(lambda _, __, output: seen.append(output))
    stochca.StochCA(student)(images(), cross_blocks=[1])
    assert [output.requires_grad for output in seen] == [True]


def test_copies_and_pickles() -> None:
    student, teacher = student_and_teacher()
    generator = torch.Generator().manual_seed(2)
    model = stochca.StochCA(student, 0.5, teacher=teacher, generator=generator).train()
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    copies = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(buffer, weights_only=False),
    ]
    expected = [model(images()) for _ in range(5)]
    assert not torch.equal(expected[0], expected[1])  # the draws differ, so a lost generator would show
    for other in copies:
        assert other.teacher is not model.teacher
        assert all(torch.equal(other(images()), value) for value in expected)


def test_gradient_checkpointing_changes_nothing() -> None:
    student, teacher = student_and_teacher(depth=4)
    model = stochca.StochCA(student, teacher=teacher).train()
    expected = gradients(student, model(images(), cross_blocks=[0, 2]).square().sum())
    student.set_grad_checkpointing(True)
    output = model(images(), cross_blocks=[0, 2])
    model(images(), cross_blocks=[1])  # another forward in between must not leak into the backward
    found = gradients(student, output.square().sum())
    assert_same_gradients(found, expected, 1e-5)


def test_student_exports_after_training() -> None:
    student = vit()
    model = stochca.StochCA(student, 1.0).train()
    model(images()).sum().backward()
    model.eval()
    exported = torch.export.export(model.student, (images(),))
    torch.testing.assert_close(exported.module()(images()), student(images()))


def test_student_is_restored_when_its_forward_fails() -> None:
    student = vit()
    blocks = student.blocks
    model = stochca.StochCA(student)
    with pytest.raises(AssertionError):
        model(torch.randn(2, 3, 24, 24), cross_blocks=[1])
    assert student.blocks is blocks
    assert type(student.blocks[1].attn.qkv) is nn.Linear


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "deit_tiny_distilled_patch16_224",
        "deit3_small_patch16_224",
        "vit_small_patch14_reg4_dinov2",
        "vit_base_patch32_clip_quickgelu_224",
        "vit_base_patch16_siglip_224",
        "vit_medium_patch16_gap_256",
    ],
)
def test_named_models_of_timm(name: str) -> None:
    patch = 14 if "patch14" in name else 32 if "patch32" in name else 16
    model = create_model(name, img_size=2 * patch, num_classes=3, depth=2)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    wrapped = stochca.StochCA(model, teacher=other)
    x = torch.randn(2, 3, 2 * patch, 2 * patch)
    model.eval()
    assert torch.equal(wrapped.eval()(x), model(x))
    output = wrapped(x, cross_blocks=[1])
    assert not torch.equal(output, model(x))


def test_parallel_scaling_blocks_are_refused() -> None:
    from timm.models.vision_transformer import ParallelScalingBlock

    with pytest.raises(stochca.UserError, match="ParallelScalingBlock"):
        stochca.StochCA(vit(block_fn=ParallelScalingBlock))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"prob": 1.5}, "between 0 and 1, found 1.5"),
        ({"prob": [0.1, 0.2]}, "2 values, but the model has 4 blocks"),
        ({"prob": "often"}, "one probability, or one per block, found 'often'"),
        ({"prob": None}, "one probability, or one per block, found None"),
        ({"granularity": "token"}, "'block' or 'sample', found 'token'"),
        ({"schedule": "sine"}, "schedule must be one of constant, linear, cosine, warmup, found 'sine'"),
        ({"teacher_precision": "fp8"}, "must be 'auto', 'same', 'bf16' or None, found 'fp8'"),
        (
            {"teacher": vit(depth=2)},
            r"block 2 is missing in the teacher, Block with \[2\] heads in the student",
        ),
        (
            {"teacher": vit(depth=5)},
            r"block 4 is Block with \[2\] heads in the teacher, missing in the student",
        ),
        (
            {"teacher": vit(embed_dim=32)},
            r"the shape of blocks.0.norm1.weight is \(32,\) in the teacher, \(16,\) in the student",
        ),
        ({"teacher": vit(img_size=32)}, "the number of tokens is 17 in the teacher, 5 in the student"),
        (
            {"teacher": vit(num_heads=4)},
            r"block 0 is Block with \[4\] heads in the teacher, Block with \[2\] heads in the student",
        ),
        ({"teacher": vit(block_fn=ResPostBlock)}, "block 0 is ResPostBlock"),
    ],
    ids=str,
)
def test_bad_arguments(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(stochca.UserError, match=sentence):
        stochca.StochCA(vit(), **arguments)  # type: ignore[arg-type]


def test_cross_blocks_must_exist() -> None:
    with pytest.raises(stochca.UserError, match=r"\[4\] don't exist; the blocks are 0 to 3"):
        stochca.StochCA(vit())(images(), cross_blocks=[4])


def test_the_model_can_not_be_its_own_teacher() -> None:
    model = vit()
    with pytest.raises(stochca.UserError, match="the teacher is the model itself"):
        stochca.StochCA(model, teacher=model)
    with pytest.raises(stochca.UserError, match="or shares parameters with it, which would be frozen"):
        stochca.StochCA(model, teacher=copy.copy(model))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_draws_do_not_follow_the_global_generator() -> None:
    torch.manual_seed(5)
    model = stochca.StochCA(vit(), 0.5)
    again = stochca.StochCA(vit(), 0.5)
    torch.manual_seed(5)
    stream = torch.rand(40, model.num_blocks)
    draws = [sorted(model.draw(1)) for _ in range(40)]
    assert draws == [
        sorted(again.draw(1)) for _ in range(40)
    ]  # torch's seed decides, whatever was drawn from it
    assert draws != [(row < 0.5).nonzero().flatten().tolist() for row in stream]


@pytest.mark.parametrize("options", [{}, {"qk_norm": True}], ids=str)
def test_data_parallel_training(options: dict[str, Any], tmp_path: Path) -> None:
    """Every parameter gets a gradient at every step, drawn or not; DDP refuses to go on otherwise."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    student, teacher = student_and_teacher(**options)
    model = nn.parallel.DistributedDataParallel(stochca.StochCA(student, 0.5, teacher=teacher))
    try:
        for blocks in ([], [0, 2], [1], [0, 1, 2, 3]):
            model(images(), cross_blocks=blocks).sum().backward()
            assert all(parameter.grad is not None for parameter in student.parameters())
    finally:
        del model  # first: a process group that dies with its last model may wait for ever
        torch.distributed.destroy_process_group()


def test_compiled_as_a_whole_it_says_what_to_do_and_never_compiles_a_draw() -> None:
    student, teacher = student_and_teacher(depth=3)
    model = stochca.StochCA(student, 0.5, teacher=teacher)
    torch.compiler.reset()
    counters.clear()
    compiled = torch.compile(model, backend="aot_eager")
    with pytest.warns(UserWarning, match=r"train it uncompiled, but within stochca\.compute\.compilation\.c"):
        found = [compiled(images(), cross_blocks=blocks) for blocks in ([], [0], [2], [0, 1, 2])]
    for blocks, output in zip(([], [0], [2], [0, 1, 2]), found, strict=True):
        assert torch.equal(output, model(images(), cross_blocks=blocks))
    with pytest.warns(UserWarning, match="compiles its evaluation alone"):
        compiled(images()).sum().backward()
    assert counters["stats"]["unique_graphs"] == 0
    model.eval()
    for _ in range(3):
        torch.testing.assert_close(compiled(images()), student(images()))
    assert counters["stats"]["unique_graphs"] == 1
    torch.compiler.reset()


@pytest.mark.parametrize("freeze", [torch.jit.trace, torch.export.export])
def test_what_is_traced_or_exported_holds_no_draw(freeze: Callable[..., Any]) -> None:
    student, teacher = student_and_teacher(depth=3)
    model = stochca.StochCA(student, 1.0, teacher=teacher)
    with pytest.raises(
        stochca.UserError, match=r"one draw of blocks would stand for all; call eval\(\) first"
    ):
        freeze(model, (images(),))
    frozen = freeze(model.eval(), (images(),))
    frozen = frozen.module() if hasattr(frozen, "module") else frozen
    torch.testing.assert_close(frozen(images()), student(images()))


class OwnUpdate(nn.Linear):
    """A low-rank update as scripts write one: a layer of another class in the place of timm's."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features)
        self.weight, self.bias = layer.weight, layer.bias
        self.down = nn.Parameter(0.3 * torch.randn(2, layer.in_features))
        self.up = nn.Parameter(0.3 * torch.randn(layer.out_features, 2))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x @ self.down.T @ self.up.T


def test_a_layer_that_does_more_than_its_weight_does_it_while_blocks_cross_attend() -> None:
    student, teacher = student_and_teacher()
    merged = copy.deepcopy(student)
    model = stochca.StochCA(student, teacher=teacher)
    for block, plain in zip(student.blocks, merged.blocks, strict=True):
        block.attn.qkv = OwnUpdate(block.attn.qkv)
        with torch.no_grad():
            plain.attn.qkv.weight += block.attn.qkv.up @ block.attn.qkv.down
    given = range(len(student.blocks))
    found = model(images(), cross_blocks=given)
    expected = stochca.StochCA(merged, teacher=teacher)(images(), cross_blocks=given)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    found.square().sum().backward()
    assert all(block.attn.qkv.up.grad.any() and block.attn.qkv.down.grad.any() for block in student.blocks)


def test_hooks_of_a_projection_are_called_while_blocks_cross_attend() -> None:
    student, teacher = student_and_teacher()
    doubled = copy.deepcopy(student)
    seen: list[int] = []

    def double(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        seen.append(len(output))
        return 2 * output

    for block, plain in zip(student.blocks, doubled.blocks, strict=True):
        block.attn.qkv.register_forward_hook(double)
        with torch.no_grad():
            plain.attn.qkv.weight *= 2
            plain.attn.qkv.bias *= 2
    found = stochca.StochCA(student, teacher=teacher)(images(), cross_blocks=[0, 2])
    expected = stochca.StochCA(doubled, teacher=teacher)(images(), cross_blocks=[0, 2])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert seen == 4 * [3]
