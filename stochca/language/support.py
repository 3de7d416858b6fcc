"""The models that can be wrapped: decoder-only ones of `transformers` that share LLaMA's layout.

Their base model (`model.model`) has `layers` and a final `norm`. A layer normalises its input, and
`self_attn` projects that with `q_proj`, `k_proj` and `v_proj`. What a forward pass is told by keyword reaches
every `self_attn`.
"""

from typing import Any

from torch import nn

from stochca.errors import UserError

LanguageModel = Any  # a PreTrainedModel, whose parts nn.Module's annotations don't know

# `model_type` in the configuration: the family as a sentence calls it.
FAMILIES = {
    "llama": "LLaMA (and SmolLM2)",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "gemma": "Gemma",
    "gemma2": "Gemma 2",
    "gemma3_text": "Gemma 3 (text)",
}


def check_supported(model: nn.Module, title: str) -> None:
    """Raise `UserError` where `model` is not one of `FAMILIES` with its language head.

    Args:
        title: what the sentence calls the method.
    """
    name = type(model).__name__
    if hasattr(model, "get_base_model"):
        raise UserError(f"{title} can't wrap a {name}: pass the model inside, model.get_base_model()")
    config = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        raise _refusal(title, name, "an encoder-decoder model")
    if getattr(config, "model_type", None) in FAMILIES and name.endswith("ForCausalLM"):
        return
    if config is not None and not name.endswith(("ForCausalLM", "LMHeadModel")):
        raise _refusal(title, name, "no decoder-only model with a language head")
    raise _refusal(title, name, "a model of another layout")


def _refusal(title: str, name: str, what: str) -> UserError:
    return UserError(
        f"{title} can't wrap a {name}, which is {what}; it wraps decoder-only models that share LLaMA's "
        f"layout, loaded with transformers.AutoModelForCausalLM: {', '.join(FAMILIES.values())}"
    )


def layers_of(model: LanguageModel) -> list[nn.Module]:
    """The decoder layers that a forward pass uses, first to last."""
    return list(model.model.layers[: model.config.num_hidden_layers])
