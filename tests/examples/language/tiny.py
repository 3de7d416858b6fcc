"""A LLaMA of two layers with random weights, a tokenizer of words, and conversations for them."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import stochca  # noqa: F401  # before transformers, which it lets import torchvision

WORDS = [f"word{number}" for number in range(60)]
SPECIAL = ["<pad>", "<unk>", "<end>", "<user>", "<assistant>", "<system>"]
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


def make_tokenizer(template: str | None = TEMPLATE) -> Any:
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, "User:", "Assistant:", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="<end>"
    )
    made.chat_template = template
    return made


def make_model(seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    settings = {
        "vocab_size": len(WORDS) + len(SPECIAL) + 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "bos_token_id": None,
    }
    return LlamaForCausalLM(LlamaConfig(**{**settings, **changes}))


def save_backbone(folder: Path, template: str | None = TEMPLATE, **changes: Any) -> Path:
    """A folder as `backbone.model: folder:PATH` takes it."""
    make_model(**changes).save_pretrained(folder)
    make_tokenizer(template).save_pretrained(folder)
    return folder


def write_conversations(folder: Path, count: int = 40) -> Path:
    """Questions of two words, which the answer repeats."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        words = f"{WORDS[number]} {WORDS[(7 * number + 3) % 60]}"
        lines.append(json.dumps({"instruction": words, "output": words}))
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    return folder
