"""Keys and values of the frozen model, and how a layer of the student takes them in the place of its own.

A cache says to an attention layer which keys and values it attends to, after its rotary positions and key
norm. So both ends are caches: the teacher's writes down what it is given, the student's answers with that.
The layers alone find them. To the models there is no cache, and documents that are packed into one sequence
stay apart.

Shapes: B sequences, N tokens, H heads of keys and values, C channels of a head.
"""

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from stochca.language.handing_down import ARGUMENT, HandedDown
from stochca.language.support import LanguageModel
from stochca.timm_models.key_value import DeepestReached

KeysValues = dict[int, tuple[Tensor, Tensor]]  # by layer: keys and values (B, H, N, C)


class Recording(HandedDown):
    """Stands where an attention layer of the teacher finds its cache, and ends the pass at the deepest."""

    def __init__(self, deepest: int) -> None:
        self.deepest = deepest
        self.seen: KeysValues = {}

    def to_attention(self, index: int, arguments: dict[str, Any]) -> None:
        arguments["past_key_values"] = self

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        self.seen[layer_idx] = key_states, value_states
        if layer_idx == self.deepest:
            raise DeepestReached
        return key_states, value_states


class FromTeacher(HandedDown):
    """Stands where an attention layer of the student finds its cache."""

    def __init__(self, given: KeysValues) -> None:
        self.given = given

    def to_attention(self, index: int, arguments: dict[str, Any]) -> None:
        if index in self.given:
            arguments["past_key_values"] = self

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """The teacher's keys and values; the student's own stay in the graph, with the gradient 0.

        Without a gradient, their weights would be skipped by the optimiser on some steps only, and
        data-parallel training would wait for them.
        """
        key, value = self.given[layer_idx]
        return key.to(key_states) + 0.0 * key_states, value.to(value_states) + 0.0 * value_states


@torch.no_grad()
def teacher_keys_values(teacher: LanguageModel, drawn: list[int], **inputs: Any) -> KeysValues:
    """Keys and values of the drawn layers; the teacher, a base model, runs as far as the deepest of them."""
    if teacher.training:  # whoever keeps it too may have set the mode of all that they have
        teacher.eval()
    recording = Recording(max(drawn))
    with suppress(DeepestReached):
        teacher(**inputs, use_cache=False, **{ARGUMENT: recording})
    return {layer: recording.seen[layer] for layer in drawn}
