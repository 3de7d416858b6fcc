"""Decoder-only models written out, one sequence, head and query at a time.

Shapes: N tokens, D channels, C channels of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass
class Pass:
    """Of one sequence."""

    inputs: list[Tensor] = field(default_factory=list)  # (N, D) that each layer was given
    outputs: list[Tensor] = field(default_factory=list)
    keys: list[list[Tensor]] = field(default_factory=list)  # (N, C) by layer and head of keys
    values: list[list[Tensor]] = field(default_factory=list)
    attention: list[list[Tensor]] = field(default_factory=list)  # (N, N) by layer and head
    logits: Tensor = field(default_factory=lambda: torch.empty(0))  # (N, vocabulary)


def run(
    model: Any,
    tokens: Tensor,
    top_down: Sequence[Tensor] | None = None,
    teacher: Pass | None = None,
    crossed: Sequence[int] = (),
) -> Pass:
    """One pass over `tokens` (N,).

    Args:
        top_down: what the values of each layer are told, (N, D).
        teacher: whose keys and values the `crossed` layers take.
    """
    done = Pass()
    is_gemma = model.config.model_type.startswith("gemma")
    x = model.model.embed_tokens.weight[tokens]
    if is_gemma:
        x = x * model.config.hidden_size**0.5
    for i, layer in enumerate(model.model.layers):
        done.inputs.append(x)
        given = normalised(x, layer.input_layernorm)
        told = None if top_down is None else top_down[i]
        attended = attend(model, i, given, told, done, teacher if i in crossed else None)
        if hasattr(layer, "pre_feedforward_layernorm"):  # norms on both sides
            x = x + normalised(attended, layer.post_attention_layernorm)
            inner = feed_forward(normalised(x, layer.pre_feedforward_layernorm), layer.mlp, is_gemma)
            x = x + normalised(inner, layer.post_feedforward_layernorm)
        else:
            x = x + attended
            x = x + feed_forward(normalised(x, layer.post_attention_layernorm), layer.mlp, is_gemma)
        done.outputs.append(x)
    done.logits = normalised(x, model.model.norm) @ model.lm_head.weight.T
    if cap := getattr(model.config, "final_logit_softcapping", None):
        done.logits = cap * torch.tanh(done.logits / cap)
    return done


def attend(
    model: Any, i: int, given: Tensor, told: Tensor | None, done: Pass, teacher: Pass | None
) -> Tensor:
    attention, config = model.model.layers[i].self_attn, model.config
    size = attention.head_dim
    to_values = given if told is None else given + told
    queries = linear(given, attention.q_proj).split(size, dim=-1)
    keys = linear(given, attention.k_proj).split(size, dim=-1)
    values = list(linear(to_values, attention.v_proj).split(size, dim=-1))
    if hasattr(attention, "k_norm"):
        queries = tuple(normalised(query, attention.q_norm) for query in queries)
        keys = tuple(normalised(key, attention.k_norm) for key in keys)
    theta = theta_of(config, i)
    queries = tuple(rotated(query, theta) for query in queries)
    keys = [rotated(key, theta) for key in keys]
    if teacher is not None:
        keys, values = teacher.keys[i], teacher.values[i]
    done.keys.append(list(keys))
    done.values.append(values)
    scale = getattr(config, "query_pre_attn_scalar", size) ** -0.5
    group = len(queries) // len(keys)
    maps, heads = [], []
    for head, query in enumerate(queries):
        key, value = keys[head // group], values[head // group]
        rows = []
        for n in range(len(given)):
            first = max(0, n + 1 - window_of(config, i))
            scores = key[first : n + 1] @ query[n] * scale
            if cap := getattr(config, "attn_logit_softcapping", None):
                scores = cap * torch.tanh(scores / cap)
            before, after = torch.zeros(first), torch.zeros(len(given) - n - 1)
            rows.append(torch.cat([before, scores.softmax(dim=0), after]))
        maps.append(torch.stack(rows))
        heads.append(maps[-1] @ value)
    done.attention.append(maps)
    return linear(torch.cat(heads, dim=-1), attention.o_proj)


def window_of(config: Any, i: int) -> int:
    types = getattr(config, "layer_types", None)
    slides = config.model_type == "mistral" if types is None else types[i] == "sliding_attention"
    return config.sliding_window if slides else 10**6


def theta_of(config: Any, i: int) -> float:
    parameters = config.rope_parameters
    return parameters.get("rope_theta") or parameters[config.layer_types[i]]["rope_theta"]


def rotated(x: Tensor, theta: float) -> Tensor:
    """(N, C), whose channels c and c + C/2 turn by n / theta^(2c/C)."""
    half = x.shape[1] // 2
    turned = []
    for n in range(len(x)):
        angle = torch.tensor([n / theta ** (2 * c / x.shape[1]) for c in range(half)])
        first, second = x[n, :half], x[n, half:]
        turned.append(
            torch.cat(
                [
                    first * angle.cos() - second * angle.sin(),
                    second * angle.cos() + first * angle.sin(),
                ]
            )
        )
    return torch.stack(turned)


def normalised(x: Tensor, norm: Any) -> Tensor:
    weight = 1 + norm.weight if type(norm).__name__.startswith("Gemma") else norm.weight
    epsilon = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
    return x / (x.pow(2).mean(dim=-1, keepdim=True) + epsilon).sqrt() * weight


def feed_forward(x: Tensor, mlp: Any, is_gemma: bool) -> Tensor:
    gate = linear(x, mlp.gate_proj)
    gate = functional.gelu(gate, approximate="tanh") if is_gemma else functional.silu(gate)
    return linear(gate * linear(x, mlp.up_proj), mlp.down_proj)


def linear(x: Tensor, layer: Any) -> Tensor:
    return x @ layer.weight.T if layer.bias is None else x @ layer.weight.T + layer.bias


def toast_by_hand(toast: Any, tokens: Tensor) -> tuple[Pass, Pass]:
    """Both passes over `tokens` (N,)."""
    first = run(toast.backbone, tokens)
    return first, run(toast.backbone, tokens, top_down=feedback_by_hand(toast, first.outputs[-1].detach()))


def feedback_by_hand(toast: Any, seen: Tensor) -> list[Tensor]:
    signals = []
    for token in seen:
        likeness = token @ toast.task / (token.norm() * toast.task.norm())
        signals.append(token * likeness.clamp(0, 1))
    signal = torch.stack(signals) @ toast.transform
    top_down: list[Tensor] = []
    for decoder in list(toast.decoders)[::-1]:
        signal = signal @ weight_of(decoder.pass_on).T
        top_down.insert(0, signal @ weight_of(decoder.emit).T)
    return top_down


def weight_of(layer: Any) -> Tensor:
    """Of a linear layer, with what LoRA adds to it."""
    if isinstance(layer, torch.nn.Linear):
        return layer.weight
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    return layer.base_layer.weight + layer.scaling["default"] * up @ down


def cross_entropy_by_hand(logits: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
    """The mean over the next tokens that have a label, of logits (N, vocabulary) and labels (N,)."""
    losses = [
        -row[n].log_softmax(dim=0)[label[n + 1]]
        for row, label in zip(logits, labels, strict=True)
        for n in range(len(label) - 1)
        if label[n + 1] != -100
    ]
    return torch.stack(losses).mean()


def reconstruction_by_hand(toast: Any, passes: Sequence[Pass]) -> Tensor:
    total = torch.zeros(())
    for i, decoder in enumerate(toast.decoders):
        given = torch.cat([each.inputs[i] for each in passes]).detach()
        gave = torch.cat([each.outputs[i] for each in passes]).detach()
        total = total + ((gave @ weight_of(decoder.pass_on).T - given) / 10).pow(2).mean()
    return total
