"""What is given in place of a timm model: the sentence says what to pass instead."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import stochca
from tests.stochca.tiny import tiny_vit


def of_peft(model: nn.Module) -> Any:
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(model, peft.LoraConfig(target_modules=["qkv"]))


class Task(nn.Module):
    """As a training framework has it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.criterion = nn.CrossEntropyLoss()
        self.net = net


AROUND: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "PEFT": (of_peft, "PeftModel is not supported, .*; pass model.base_model.model"),
    "torch.compile": (torch.compile, "OptimizedModule is not supported, .*; pass model._orig_mod"),
    "DataParallel": (nn.DataParallel, "DataParallel is not supported, .*; pass model.module"),
    "an average": (AveragedModel, "AveragedModel is not supported, .*; pass model.module"),
    "StochCA": (stochca.StochCA, "StochCA is not supported, .*; pass model.student"),
    "VPT": (stochca.VPT, "VPT is not supported, .*; pass model.backbone"),
    "a task": (Task, "Task is not supported, .*; pass model.net"),
    "a sequence": (
        lambda model: nn.Sequential(nn.Identity(), model),
        r"Sequential is not supported, .*; pass model.get_submodule\('1'\)",
    ),
}
ASKING = {"StochCA": stochca.StochCA, "VPT": stochca.VPT, "TOAST": stochca.TOAST}


@pytest.mark.parametrize(("around", "sentence"), AROUND.values(), ids=AROUND)
def test_of_what_is_around_a_model_the_part_to_pass_is_named(
    around: Callable[[nn.Module], Any], sentence: str
) -> None:
    inner = tiny_vit()
    model = around(inner)
    for name, ask in ASKING.items():
        with pytest.raises(stochca.UserError, match=f"^{sentence}$") as refused:
            ask(model)
        assert "VisionTransformer in it is" in str(refused.value), name
    with pytest.raises(stochca.UserError, match=f"^{sentence}$"):
        stochca.StochCA(tiny_vit(), teacher=model)
    # What the sentence says is the model.
    named = eval(str(refused.value).split("; pass ")[1], {"model": model})
    assert type(named) is type(inner)
    assert any(named is part for part in model.modules())


def test_a_tuned_model_of_peft_is_taken_as_the_sentence_says() -> None:
    model = of_peft(tiny_vit())
    wrapped = stochca.StochCA(model.base_model.model)
    images = torch.randn(2, 3, 16, 16)
    wrapped(images, cross_blocks=[1]).sum().backward()
    learned = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learned
    assert all("lora_" in name for name in learned)


def of_torchvision() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(16, 8, 1, 2, 16, 32)


def of_hugging_face() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=16
    )
    return transformers.ViTModel(config)


OTHERS: dict[str, tuple[Callable[[], Any], str]] = {
    "torchvision": (
        of_torchvision,
        "VisionTransformer of torchvision is not supported; create the model with timm",
    ),
    "Hugging Face": (
        of_hugging_face,
        "ViTModel of transformers is not supported; create the model with timm",
    ),
    "a name": (
        lambda: "vit_base_patch16_224",
        "str of builtins is not supported; create the model with timm",
    ),
    "another of timm": (
        lambda: timm.create_model("test_resnet"),
        "^ResNet is not supported; supported are timm's",
    ),
}


@pytest.mark.parametrize(("make", "sentence"), OTHERS.values(), ids=OTHERS)
def test_others_are_refused_by_name(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(stochca.UserError, match=sentence):
        stochca.StochCA(make())


def test_compiled_in_place() -> None:
    whole, part, block = tiny_vit(), tiny_vit(), tiny_vit()
    whole.compile()
    part.blocks[1].compile()
    block.blocks[0] = torch.compile(block.blocks[0])
    for model in (whole, part, block):
        with pytest.raises(
            stochca.UserError, match=r"VisionTransformer is compiled, or a part of it.*compiled_blocks"
        ):
            stochca.StochCA(model)
