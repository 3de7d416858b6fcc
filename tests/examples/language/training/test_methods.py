from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from examples.language.settings import KINDS, Method
from examples.language.training.methods import build, save
from stochca.errors import UserError
from stochca.language import TOAST
from tests.examples.language.tiny import make_model

TOKENS = torch.tensor([[9, 10, 11, 12]])


def method(adapt: str, **options: object) -> Method:
    return KINDS[adapt].model_validate({"adapt": adapt, "lr": 1e-3, **options})


LORA = method("lora", rank=2, alpha=4, layers=["q_proj", "v_proj"])


@pytest.mark.parametrize(
    ("chosen", "learning"),
    [
        (method("full"), 70 * 32 + 2 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48 + 2 * 32) + 32),
        (LORA, 2 * 2 * ((32 + 32) + (32 + 16))),  # layers x rank x (q_proj, v_proj)
        (method("toast"), 2 * 32 * 32 + 32),  # what each decoder emits, and the task vector
        (method("toast", rank=2, alpha=2), 2 * 2 * 2 * (32 + 32) + 32),  # updates of both parts of each
        (method("stochca", prob=0.5), 70 * 32 + 2 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48 + 2 * 32) + 32),
    ],
)
def test_what_learns(chosen: Method, learning: int) -> None:
    model = make_model(vocab_size=70)
    before = model(TOKENS).logits
    module = build(chosen, model, None).eval()
    assert sum(each.numel() for each in module.parameters() if each.requires_grad) == learning
    assert torch.allclose(module(TOKENS).logits, before, atol=1e-6)  # every method begins with the model


def test_a_layer_that_is_not_there() -> None:
    with pytest.raises(UserError, match="LoRA's layers query don't suit the model"):
        build(method("lora", rank=2, alpha=4, layers=["query"]), make_model(), None)


def test_decoders_of_another_width(tmp_path: Path) -> None:
    TOAST(make_model(hidden_size=64), plain_start=True).save_decoders(tmp_path / "decoders.safetensors")
    with pytest.raises(UserError, match="width 64") as error:
        build(method("toast"), make_model(), tmp_path / "decoders.safetensors")
    assert "\n" not in str(error.value)


def test_what_is_saved_loads_elsewhere(tmp_path: Path) -> None:
    for name, chosen in {"full": method("full"), "stochca": method("stochca", prob=0.5)}.items():
        module = build(chosen, make_model(seed=3), None).eval()
        save(module, tmp_path / name)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / name).eval()
        assert torch.equal(loaded(TOKENS).logits, module(TOKENS).logits)
    module = build(LORA, make_model(), None).eval()
    for parameter in module.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    save(module, tmp_path / "lora")
    loaded = PeftModel.from_pretrained(make_model(), tmp_path / "lora").eval()
    assert torch.allclose(loaded(TOKENS).logits, module(TOKENS).logits)
