"""What reaches the attention layers of a model beside its inputs, while the model stays as it is.

Every keyword argument of a forward pass travels on to each layer and its attention. One of them carries an
object of ours, which hooks take out before the attention runs. Gradient checkpointing, which runs a layer
again in the backward pass, runs it with the same arguments: with the same object. Without that argument the
hooks do nothing.
"""

import threading
from typing import Any

from torch import Tensor, nn

from stochca.language.support import LanguageModel, layers_of

ARGUMENT = "handed_down"
# Of the arguments of a forward pass, those that a pass which only looks at the tokens does without.
OF_THE_ANSWER = frozenset(
    {
        "output_attentions",
        "output_hidden_states",
        "num_items_in_batch",
        "shift_labels",
        "logits_to_keep",
        "return_dict",
    }
)


class HandedDown:
    """Travels through one forward pass; as it stands here, it changes nothing.

    Shapes: B sequences, N tokens, D channels.
    """

    def to_attention(self, index: int, arguments: dict[str, Any]) -> Tensor | None:
        """Called before the attention of layer `index`, whose keyword arguments it may change.

        Returns what is added to the hidden states (B, N, D) that the values are projected from.
        """
        return None

    def from_layer(self, given_BND: Tensor, gave_BND: Tensor) -> None:
        """Called after each layer with its input and output."""


def receive(model: LanguageModel) -> None:
    """Let the layers of `model` receive what is handed down. Twice is once."""
    for layer in layers_of(model):
        attention: Any = layer.self_attn
        if _enter_attention not in attention._forward_pre_hooks.values():
            attention.register_forward_pre_hook(_enter_attention, with_kwargs=True)
            attention.v_proj.register_forward_pre_hook(_enter_values)
            layer.register_forward_hook(_leave_layer, with_kwargs=True)


class _ToValues(threading.local):
    """What the values of the attention that this thread is in are told."""

    added_BND: Tensor | None = None


_to_values = _ToValues()


def _enter_attention(attention: Any, inputs: Any, arguments: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    handed_down = arguments.pop(ARGUMENT, None)
    _to_values.added_BND = (
        None if handed_down is None else handed_down.to_attention(attention.layer_idx, arguments)
    )
    return inputs, arguments


def _enter_values(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    added_BND, _to_values.added_BND = _to_values.added_BND, None
    return None if added_BND is None else (inputs[0] + added_BND.to(inputs[0]), *inputs[1:])


def _leave_layer(_: nn.Module, inputs: tuple[Tensor, ...], arguments: dict[str, Any], gave: Tensor) -> None:
    handed_down = arguments.get(ARGUMENT)
    if handed_down is not None:
        handed_down.from_layer(inputs[0], gave)
