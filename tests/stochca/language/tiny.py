"""Random models of each supported family, of a few thousand parameters, and tokens for them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from stochca.language import TOAST

transformers = pytest.importorskip("transformers")

VOCABULARY, WIDTH, LAYERS, PAD = 40, 16, 3, 0
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,  # grouped
    "max_position_embeddings": 64,
    "initializer_range": 0.3,  # large enough to matter
    "pad_token_id": PAD,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW = 4  # of layers that see the last tokens alone
GEMMA: dict[str, Any] = {"head_dim": 8, "sliding_window": WINDOW, "query_pre_attn_scalar": 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {"tie_word_embeddings": True},
    "Mistral": {"sliding_window": WINDOW},
    "Qwen2": {},
    "Qwen3": {"head_dim": 8},
    "Gemma": {"head_dim": 8},
    "Gemma2": {**GEMMA, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "Gemma3": {**GEMMA, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
}
# Gemma 2, whose scores are capped, has no sdpa in transformers.
KERNELS = [
    (family, kernel)
    for family in FAMILIES
    for kernel in ("sdpa", "eager")
    if (family, kernel) != ("Gemma2", "sdpa")
]


def tiny_model(family: str = "Llama", seed: int = 0, attention: str | None = None, **options: Any) -> Any:
    """A model in evaluation mode, whose norms are not all ones; with the default kernel, or `attention`."""
    config_class = getattr(transformers, f"{family}TextConfig" if family == "Gemma3" else f"{family}Config")
    config = config_class(attn_implementation=attention, **{**COMMON, **FAMILIES[family], **options})
    torch.manual_seed(seed)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def lively_toast(model: Any, seed: int = 2, **options: Any) -> TOAST:
    """A TOAST whose second pass differs from the first: decoders as they might be when trained."""
    toast = TOAST(model, **options)
    toast.pretuned = True
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        toast.transform.add_(0.3 * torch.randn(WIDTH, WIDTH, generator=generator))
        toast.task.copy_(torch.randn(WIDTH, generator=generator))
        for parameter in toast.decoders.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return toast


def tokens(batch: int = 2, length: int = 9, seed: int = 0) -> Tensor:
    """(batch, length), without special ones."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (batch, length), generator=generator)


def padded(sequences: list[Tensor], left: bool) -> tuple[Tensor, Tensor]:
    """A batch and its mask."""
    length = max(len(sequence) for sequence in sequences)
    rows, masks = [], []
    for sequence in sequences:
        padding = torch.full((length - len(sequence),), PAD)
        seen = torch.ones(len(sequence), dtype=torch.long)
        parts, mask = [padding, sequence], [torch.zeros_like(padding), seen]
        rows.append(torch.cat(parts if left else parts[::-1]))
        masks.append(torch.cat(mask if left else mask[::-1]))
    return torch.stack(rows), torch.stack(masks)
