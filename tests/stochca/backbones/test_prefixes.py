"""Checkpoints of what is around a model: the model is found in them, or what is there is named."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import stochca
from stochca._typing import TimmModule
from stochca.backbones.loading import adapt_weights
from stochca.errors import UserError

SIZE = 160


@pytest.fixture(scope="module")
def pretrained() -> TimmModule:
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=7).eval()


class Task(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.loss = nn.Linear(2, 2)


def compiled_blocks(model: TimmModule) -> nn.Module:
    for i, block in enumerate(model.blocks):
        model.blocks[i] = torch.compile(block)
    return model


AROUND: dict[str, Callable[[Any], Any]] = {
    "itself": lambda model: model,
    "StochCA": stochca.StochCA,
    "VPT": stochca.VPT,
    "TOAST": stochca.TOAST,
    "torch.compile": lambda model: torch.compile(model),
    "DataParallel": nn.DataParallel,
    "an average": lambda model: torch.optim.swa_utils.AveragedModel(model),
    "a task": Task,
    "a task with a compiled StochCA": lambda model: Task(torch.compile(stochca.StochCA(model))),
    "compiled blocks": compiled_blocks,
    "a sequence": lambda model: nn.Sequential(nn.Identity(), model),
}


def stored(state: dict[str, Tensor]) -> dict[str, Tensor]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
def test_the_model_is_found(around: Callable[[Any], Any], pretrained: TimmModule) -> None:
    torch.manual_seed(1)
    model = timm.create_model("test_vit", num_classes=7)
    model.load_state_dict(pretrained.state_dict())
    found = adapt_weights(stored(around(model).state_dict()), "test_vit", image_size=SIZE)
    expected = pretrained.state_dict()
    assert found.state_dict().keys() == expected.keys()  # its head included
    assert all(torch.equal(value, expected[name]) for name, value in found.state_dict().items())


def test_positions_under_a_prefix_are_resampled(pretrained: TimmModule) -> None:
    weights = pretrained.state_dict()
    plain = adapt_weights(weights, "test_vit", image_size=64).state_dict()
    under = {f"net.{name}": value for name, value in weights.items()}
    for name, value in adapt_weights(under, "test_vit", image_size=64).state_dict().items():
        assert torch.equal(value, plain[name])


def refusal(state: dict[str, Tensor]) -> str:
    with pytest.raises(UserError) as error:
        adapt_weights(state, "test_vit", image_size=SIZE, source="file:x.pth")
    return str(error.value)


def test_several_models_are_named(pretrained: TimmModule) -> None:
    weights = pretrained.state_dict()
    both = {f"{part}.{name}": value for part in ("student", "teacher.net") for name, value in weights.items()}
    assert refusal(both) == (
        "file:x.pth holds 2 models, under student., teacher.net.; save the state dict of one of them alone"
    )
    beside = {**weights, **{f"ema.{name}": value for name, value in weights.items()}}
    assert "holds 2 models, under no prefix, ema.;" in refusal(beside)


def test_updates_of_lora_are_named(pretrained: TimmModule) -> None:
    peft = pytest.importorskip("peft")
    model = timm.create_model("test_vit", num_classes=7)
    tuned = peft.get_peft_model(model, peft.LoraConfig(target_modules=["qkv"]))
    assert "holds updates of LoRA beside the weights, or without them; merge them" in refusal(
        tuned.state_dict()
    )
    alone = peft.get_peft_model_state_dict(tuned)
    assert "holds updates of LoRA" in refusal(alone)
    merged = tuned.merge_and_unload().state_dict()
    adapt_weights(merged, "test_vit", image_size=SIZE)


def test_what_holds_nothing_of_the_model_is_shown(pretrained: TimmModule) -> None:
    adapter = stochca.VPT(timm.create_model("test_vit", num_classes=7)).adapter_state()
    assert "no tensor that test_vit has; its tensors are called backbone.head.bias, " in refusal(adapter)
    under = {f"model.{name}": value for name, value in list(pretrained.state_dict().items())[:20]}
    assert "its tensors are called model.blocks.0." in refusal(under)  # less than half: the prefix is seen
