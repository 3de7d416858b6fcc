"""Which models are wrapped; the others are refused by name."""

from typing import Any

import pytest
from torch import nn

from stochca.errors import UserError
from stochca.language import TOAST, StochCA
from tests.stochca.language.tiny import FAMILIES, WIDTH, tiny_model, transformers

SMALL: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 9,
}


def others() -> dict[str, Any]:
    """A model, by what the sentence says of it."""
    t5 = transformers.T5Config(d_model=8, d_ff=8, d_kv=4, num_layers=1, num_heads=2, vocab_size=9)
    bert = transformers.BertConfig(**SMALL, intermediate_size=8)
    gpt2 = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=9)
    phi = transformers.PhiConfig(**SMALL, intermediate_size=8)
    return {
        "T5ForConditionalGeneration, which is an encoder-decoder": transformers.T5ForConditionalGeneration(
            t5
        ),
        "BertForMaskedLM, which is no decoder-only": transformers.BertForMaskedLM(bert),
        "GPT2LMHeadModel, which is a model of another layout": transformers.GPT2LMHeadModel(gpt2),
        "PhiForCausalLM, which is a model of another layout": transformers.PhiForCausalLM(phi),
        "LlamaModel, which is no decoder-only model with a language head": tiny_model().model,
        "Linear, which is a model of another layout": nn.Linear(2, 2),
    }


@pytest.mark.parametrize("wrap", [TOAST, StochCA])
def test_others_are_refused_by_name(wrap: Any) -> None:
    for sentence, model in others().items():
        with pytest.raises(UserError, match=f"{wrap.__name__} can't wrap a {sentence}.*LLaMA's layout"):
            wrap(model)


def test_a_model_in_peft_is_to_be_passed_from_inside() -> None:
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(tiny_model(), peft.LoraConfig(target_modules=["v_proj"]))
    with pytest.raises(UserError, match="get_base_model"):
        TOAST(adapted)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("wrap", [TOAST, StochCA])
def test_names_and_class_stay(family: str, wrap: Any) -> None:
    model = tiny_model(family)
    names = [name for name, _ in model.named_parameters()]
    wrap(model)
    assert (
        [name for name, _ in model.named_parameters()]
        == names
        == list(dict(tiny_model(family).named_parameters()))
    )
    assert type(model).__name__ == f"{family}ForCausalLM"
