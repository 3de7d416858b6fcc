"""A state that is loaded beside another teacher than it was trained with says so, however it was stored."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from timm.utils import ModelEmaV3
from torch import Tensor, nn

import stochca
from stochca.attention.teacher import sample_of
from stochca.compute.sampled import are_of_one_model
from stochca.timm_models.families import block_names
from tests.stochca.timm_models.families.cases import CASES, images
from tests.stochca.tiny import tiny_vit

SENTENCE = (
    "the state was saved beside another teacher than this StochCA has; wrap the model as it was wrapped"
)


def trained() -> stochca.StochCA:
    """A few steps, each as small as fine-tuning takes them."""
    model = stochca.StochCA(tiny_vit(seed=0), 0.5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for _ in range(5):
        optimizer.zero_grad()
        model(images()).square().sum().backward()
        optimizer.step()
    return model


def through_torch(state: dict[str, Tensor], path: Path) -> Any:
    torch.save({"model": state, "epoch": 3}, path)
    return torch.load(path, weights_only=True)["model"]


def through_safetensors(state: dict[str, Tensor], path: Path) -> Any:
    save_file(state, path)
    return load_file(path)


def in_half(state: dict[str, Tensor], path: Path) -> Any:
    return {name: value.bfloat16() for name, value in state.items()}


STORED = {"torch": through_torch, "safetensors": through_safetensors, "half precision": in_half}


@pytest.mark.parametrize("store", STORED.values(), ids=STORED)
def test_only_beside_its_own_teacher_a_state_is_loaded(store: Callable[..., Any], tmp_path: Path) -> None:
    model = trained()
    state = store(model.state_dict(), tmp_path / "state")
    again = stochca.StochCA(tiny_vit(seed=0), 0.5)
    again.load_state_dict(state)
    torch.testing.assert_close(again.student.state_dict(), model.student.state_dict(), rtol=1e-2, atol=1e-2)
    given = stochca.StochCA(copy.deepcopy(model.student), teacher=tiny_vit(seed=0))  # whole, not headless
    given.load_state_dict(state)
    random, tuned = stochca.StochCA(tiny_vit(seed=1)), stochca.StochCA(copy.deepcopy(model.student))
    for other in (random, tuned):
        before = copy.deepcopy(other.student.state_dict())
        with pytest.raises(stochca.UserError, match=SENTENCE):
            other.load_state_dict(state)
        assert all(torch.equal(value, before[name]) for name, value in other.student.state_dict().items())


def test_a_state_from_before_it_knew_its_teacher_is_loaded() -> None:
    state = trained().state_dict()
    del state["_extra_state"]
    for seed in (0, 1):
        assert (
            str(stochca.StochCA(tiny_vit(seed)).load_state_dict(state)) == "<All keys matched successfully>"
        )


def test_inside_of_another_module() -> None:
    class Task(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.model = stochca.StochCA(tiny_vit(seed))

    state = Task(0).state_dict()
    assert "model._extra_state" in state
    Task(0).load_state_dict(state)
    with pytest.raises(stochca.UserError, match=r"leave model\._extra_state out of it"):
        Task(1).load_state_dict(state)
    del state["model._extra_state"]
    Task(1).load_state_dict(state)


def test_others_that_save_and_average_states(tmp_path: Path) -> None:
    model = trained()
    save_model(model, str(tmp_path / "model.safetensors"))
    load_model(stochca.StochCA(tiny_vit(seed=0)), str(tmp_path / "model.safetensors"))
    average = ModelEmaV3(model, decay=0.5)
    average.update(model)
    average.load_state_dict(average.state_dict())
    mean = {name: (value + value) / 2 for name, value in model.state_dict().items()}
    stochca.StochCA(tiny_vit(seed=0)).load_state_dict(mean)
    with torch.device("meta"):
        empty = stochca.StochCA(tiny_vit())
    empty.load_state_dict(model.state_dict(), assign=True)  # nothing is known of its teacher
    stochca.StochCA(tiny_vit(seed=1)).load_state_dict({**model.state_dict(), "_extra_state": torch.empty(0)})


@pytest.mark.parametrize("name", ["vit", "dinov3", "beit, shared bias", "swin", "maxvit", "sam"])
def test_what_tells_teachers_apart(name: str) -> None:
    case = CASES[name]
    teacher = case.model()
    own = stochca.StochCA(case.model()).get_extra_state()
    assert own.numel() < 800
    assert torch.equal(own, sample_of(teacher))
    for same in (copy.deepcopy(teacher).half(), copy.deepcopy(teacher).bfloat16(), teacher.double()):
        assert are_of_one_model(sample_of(same), own)
        assert are_of_one_model(own, sample_of(same))
    in_bf16 = stochca.StochCA(case.model(), teacher_precision="bf16")
    assert are_of_one_model(in_bf16.get_extra_state(), own)
    assert not are_of_one_model(sample_of(case.model(seed=1)), own)
    other_head = case.model()
    other_head.reset_classifier(9)
    assert torch.equal(sample_of(other_head), own)
    # The first block or the last that learned, or biases and norms alone, is another teacher.
    for changed in ("blocks.0.", f"{block_names(teacher)[-1]}.", "bias"):
        tuned = case.model()
        with torch.no_grad():
            for key, parameter in tuned.named_parameters():
                if changed in key:
                    parameter.mul_(1.02)
        assert not are_of_one_model(sample_of(tuned), own)


def test_lora_that_has_yet_to_learn_makes_no_other_teacher() -> None:
    """Its random half differs in every session."""
    peft = pytest.importorskip("peft")

    def wrapped(seed: int) -> stochca.StochCA:
        base = tiny_vit(seed=0)
        torch.manual_seed(seed)
        tuned = peft.get_peft_model(base, peft.LoraConfig(target_modules=["qkv", "fc1"], r=2))
        return stochca.StochCA(tuned.get_base_model())

    wrapped(1).load_state_dict(wrapped(2).state_dict())
    assert torch.equal(wrapped(1).get_extra_state(), stochca.StochCA(tiny_vit(seed=0)).get_extra_state())
