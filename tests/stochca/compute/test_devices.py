"""Every part of a method on a second device, which refuses what is left on the CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import stochca
from stochca.compute.devices import default_device, device_name
from stochca.config import (
    Bss,
    CoTuning,
    Delta,
    Ema,
    HeadAlone,
    L2Sp,
    Lora,
    LpFt,
    Method,
    Miro,
    StochasticCrossAttention,
    Swa,
    Swad,
    Toast,
    ToastLite,
    Vpt,
    WiseFt,
    ZeroShot,
)
from stochca.config.training import Training
from stochca.evaluation import predict
from stochca.training.fit import Fitted, fit
from stochca.training.inputs import Inputs
from tests.stochca.phases.test_zero_shot import class_texts
from tests.stochca.pretend import NAME, REAL, pretended
from tests.stochca.timm_models.families.cases import CASES, images
from tests.stochca.tiny import PREPROCESSING, ColouredSquares, tiny_vit
from tests.stochca.training.test_fit import settings

CPU = torch.device("cpu")
needs_pretending = pytest.mark.skipif(REAL is not None, reason="a real device is asked for")
STOCHCA = StochasticCrossAttention(prob=0.5, teacher_precision="same")
PER_IMAGE = StochasticCrossAttention(prob=0.5, granularity="sample", teacher_precision="same")
METHODS = {
    "finetune": Method(),
    "linear_probe": Method(adapter=HeadAlone()),
    "stochca": Method(attention=STOCHCA),
    "stochca, per image": Method(attention=PER_IMAGE),
    "lora": Method(adapter=Lora(rank=2)),
    "vpt": Method(adapter=Vpt(tokens=2, dropout=0.1)),
    "toast": Method(adapter=Toast()),
    "toast_lite": Method(adapter=ToastLite(rank=2)),
    "stochca+lora": Method(attention=STOCHCA, adapter=Lora(rank=2)),
    "lp_ft": Method(phases=LpFt(C=(0.1, 1.0))),
    "zero_shot": Method(phases=ZeroShot()),
    **{
        penalty.name: Method(penalties=(penalty,)) for penalty in (L2Sp(), Delta(), Bss(), Miro(), CoTuning())
    },
    "ema": Method(average=Ema(decay=0.9)),
    "swa": Method(average=Swa(start=0.5)),
    "swad": Method(average=Swad(n_converge=1, n_tolerance=1)),
    "wise_ft": Method(phases=LpFt(C=(1.0,)), average=WiseFt(alpha=(0.0, 0.5, 1.0))),
    "everything": Method(
        attention=PER_IMAGE, phases=LpFt(C=(1.0,)), penalties=(Bss(), Miro()), average=Ema(decay=0.9)
    ),
}


def trained(
    method: Method, device: torch.device | None, folder: Path | None = None, **options: Any
) -> Fitted:
    source_head = nn.Linear(16, 4)
    with torch.no_grad():
        source_head.weight.copy_(torch.arange(64.0).view(4, 16) / 64)
        source_head.bias.zero_()
    defaults: dict[str, Any] = {"steps": 3, "evaluations": 3, "checkpoints": 1}
    chosen: Training = settings(**{**defaults, **options})
    inputs = Inputs(
        tiny_vit(drop_path_rate=chosen.drop_path),
        ColouredSquares(24),
        ColouredSquares(12, seed=1),
        method=method,
        settings=chosen,
        preprocessing=PREPROCESSING,
        source_head=source_head,
        class_texts=class_texts() if isinstance(method.phases, ZeroShot) else None,
    )
    return fit(inputs, device=device, work_folder=folder)


def assert_as_on_the_cpu(found: Fitted, expected: Fitted) -> None:
    assert found.validation is not None
    assert expected.validation is not None
    assert found.validation.loss == pytest.approx(expected.validation.loss, rel=1e-3)
    assert found.model.state_dict().keys() == expected.model.state_dict().keys()


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_and_is_evaluated_where_it_is(name: str, tmp_path: Path) -> None:
    with pretended() as device:
        found = trained(METHODS[name], device if REAL else None, tmp_path)  # the device that is there
        assert {parameter.device.type for parameter in found.model.parameters()} == {device.type}
        logits, _ = predict(found.model, ColouredSquares(6), PREPROCESSING, device=device)
        assert logits.device == CPU
    assert_as_on_the_cpu(found, trained(METHODS[name], CPU))


@pytest.mark.parametrize(
    "options",
    [
        {"class_weights": "balanced"},
        {"sampler": "balanced"},
        {"accumulate": 2, "gradient_checkpointing": True},
        {"optimizer": "momentum", "layer_decay": 0.7},
        {"augmentation": "mixed"},
    ],
    ids=str,
)
def test_so_do_settings(options: dict[str, Any]) -> None:
    if options.get("augmentation") == "mixed":
        options = {"augmentation": type(settings().augmentation)(mixup=0.5, cutmix=0.5, random_erasing=0.5)}
    with pretended() as device:
        found = trained(METHODS["stochca"], device, **options)
    assert_as_on_the_cpu(found, trained(METHODS["stochca"], CPU, **options))


@pytest.mark.parametrize("name", CASES)
def test_every_family_cross_attends_where_it_is(name: str) -> None:
    case = CASES[name]

    def gradients(device: torch.device) -> tuple[Tensor, list[Tensor]]:
        model = stochca.StochCA(case.model(), teacher=case.model(seed=1)).to(device).train()
        blocks = range(len(case.blocks(model.student)))
        logits = model(images().to(device), cross_blocks=list(blocks)[::2])
        logits.square().sum().backward()
        found = [p.grad.cpu() for p in model.student.parameters() if p.grad is not None]
        return logits.detach().cpu(), found

    torch.manual_seed(0)
    expected = gradients(CPU)
    torch.manual_seed(0)
    with pretended() as device:
        found = gradients(device)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


@needs_pretending
def test_a_head_that_stays_behind_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    move = nn.Module._apply
    monkeypatch.setattr(
        nn.Module,
        "_apply",
        lambda self, *rest, **named: (
            self if isinstance(self, nn.Linear) and self.out_features == 3 else move(self, *rest, **named)
        ),
    )
    with pretended(), pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
        trained(METHODS["finetune"], None)


@needs_pretending
def test_a_generator_of_another_device_is_caught() -> None:
    with pretended() as device:
        torch.rand(2, device=device, generator=torch.Generator(device))
        torch.rand(2, generator=torch.Generator())
        for where, generator in ((device, torch.Generator()), (CPU, torch.Generator(device))):
            with pytest.raises(
                RuntimeError, match="the generator and what is drawn are on different devices"
            ):
                torch.rand(2, device=where, generator=generator)


@needs_pretending
def test_a_mask_that_is_not_moved_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which images of a batch attend to the teacher, as drawn on the CPU."""
    move = Tensor.to
    monkeypatch.setattr(
        Tensor,
        "to",
        lambda self, *to, **named: self if self.dtype == torch.bool else move(self, *to, **named),
    )
    with pretended(), pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
        trained(METHODS["stochca, per image"], None)


@needs_pretending
def test_outside_it_is_not_there() -> None:
    with pretended() as device:
        assert default_device().type == NAME
        assert device_name(device) == NAME
        tensor = torch.ones(2, device=device)
        with pytest.raises(TypeError, match="can't convert pretend:0 device type tensor to numpy"):
            tensor.numpy()
        with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
            tensor + torch.ones(2)
        assert (tensor + torch.tensor(1.0)).tolist() == [2.0, 2.0]  # single numbers may be anywhere
    assert default_device() == CPU


def test_a_processor_has_a_name() -> None:
    name = device_name(CPU)
    assert name
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and "model name" in cpuinfo.read_text():
        assert name in cpuinfo.read_text()
