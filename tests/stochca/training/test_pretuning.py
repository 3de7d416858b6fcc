"""Pre-tuning of TOAST's decoders against the loss by hand, and after an interruption."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from stochca.compute.checkpoint import load_checkpoint
from stochca.compute.compilation import compiled_blocks
from stochca.config.training import Training
from stochca.errors import UserError
from stochca.training import pretuning
from stochca.training.callbacks import Callback, StepEvent
from stochca.training.pretuning import Pretuned, Reconstruction, pretune
from tests.stochca.tiny import EAGER, PREPROCESSING, ColouredSquares, tiny_vit

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
SETTINGS = Training(steps=9, batch_size=8, lr=1e-2, precision="fp32", checkpoints=3, workers=0)


class Killed(Exception):
    pass


class Kill(Callback):
    def on_step(self, event: StepEvent) -> None:
        if event.step == 8:
            raise Killed


def run(folder: Path | None = None, *callbacks: Callback, settings: Training = SETTINGS) -> Pretuned:
    return pretune(
        tiny_vit(num_classes=0),
        ColouredSquares(24),
        settings=settings,
        preprocessing=PREPROCESSING,
        work_folder=folder,
        callbacks=callbacks,
        device=torch.device("cpu"),
    )


def test_a_diverged_run_says_so_and_saves_nothing_of_it(tmp_path: Path) -> None:
    sentence = r"diverged: the gradients of 5 steps in a row.* saw image \d+, image"
    with pytest.raises(UserError, match=sentence):
        run(tmp_path, settings=replace(SETTINGS, steps=30, checkpoints=10, lr=1e30))
    assert load_checkpoint(tmp_path) is None
    with pytest.raises(UserError, match=r"diverged in its last steps; lower lr in pretune\.training"):
        run(settings=replace(SETTINGS, steps=4, lr=1e30))


def test_the_loss_is_that_of_the_paper() -> None:
    backbone = tiny_vit().eval()
    model = Reconstruction(backbone)
    x = backbone._pos_embed(backbone.patch_embed(IMAGES))
    expected = torch.zeros(())
    for block, decoder in zip(backbone.blocks, model.decoders, strict=True):
        out = block(x)
        expected = expected + 0.1 * ((out @ decoder.pass_on.weight.T - x) ** 2).mean()  # type: ignore[union-attr]
        x = out
    loss = model(IMAGES)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert {name.split(".")[0] for name in model.state_dict()} == {"decoders"}


def test_decoders_learn_to_reconstruct_and_resume_bit_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run()
    assert expected.loss < 0.9 * expected.loss_before
    with pytest.raises(Killed):
        run(tmp_path, Kill())
    for other, name in (
        ({"lr": 0.5}, "training.lr"),
        ({"steps": 10}, "training.steps"),
        ({"precision": "bf16"}, "training.precision"),
    ):
        with pytest.raises(UserError, match=f"a checkpoint of another training, where {name} was"):
            run(tmp_path, settings=replace(SETTINGS, **other))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": False})
    resumed = run(tmp_path, settings=replace(SETTINGS, precision="auto"))  # which is fp32 there
    for name, value in expected.decoders.state_dict().items():
        assert torch.equal(resumed.decoders.state_dict()[name], value), name
    assert (resumed.loss, resumed.loss_before) == (expected.loss, expected.loss_before)


def test_the_backbone_may_run_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run()
    monkeypatch.setattr(pretuning, "compiled_blocks", partial(compiled_blocks, backend=EAGER))
    torch.compiler.reset()
    before = counters["stats"]["unique_graphs"]
    found = run(settings=replace(SETTINGS, compile=True))
    assert counters["stats"]["unique_graphs"] == before + 1  # all blocks are one
    for name, value in expected.decoders.state_dict().items():
        torch.testing.assert_close(found.decoders.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    torch.compiler.reset()


def test_what_can_not_work_is_refused() -> None:
    with pytest.raises(UserError, match="there are no images to pre-tune on"):
        pretune(tiny_vit(), ColouredSquares(0), settings=SETTINGS, preprocessing=PREPROCESSING)
    layers = Training(steps=1, layer_decay=0.5)
    with pytest.raises(UserError, match="layer_decay must be null"):
        pretune(tiny_vit(), ColouredSquares(8), settings=layers, preprocessing=PREPROCESSING)
