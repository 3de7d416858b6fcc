"""Stochastic cross-attention in decoder-only language models: our own extension, which no paper describes.

StochCA (Seo, Lee and Hwang, arXiv 2402.16092) is a method for vision transformers. Here each layer of the
student, with some probability in a training step, computes its attention with its own queries but with the
keys and values of the same layer of the frozen pretrained model (the teacher), after the teacher's rotary
positions and key norm. One draw per layer and step is shared by the batch. In evaluation the model is exactly
the student.
"""

import copy
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutputWithPast

from stochca.attention.probability import one_per_block
from stochca.compute.randomness import Stream, derived_seed
from stochca.errors import UserError
from stochca.language.handing_down import ARGUMENT, OF_THE_ANSWER, receive
from stochca.language.identity import weights_sha256
from stochca.language.support import LanguageModel, check_supported, layers_of
from stochca.language.teacher import FromTeacher, teacher_keys_values
from stochca.language.tied import save_tied_once
from stochca.language.wrapper import LanguageWrapper


class StochCA(LanguageWrapper):
    """Wrap a language model so that training it uses stochastic cross-attention; our own extension.

    Args:
        model: the student, a decoder-only model of `transformers` that shares LLaMA's layout; trained in
            place, never renamed.
        prob: probability that a layer cross-attends in a training step; one value, or one per layer.
        teacher: the frozen model that gives keys and values; None takes a copy of `model` as it is now.
        generator: CPU generator of the draws; None makes one from torch's seed. It is part of the state, so
            that a run that goes on from a checkpoint draws what it would have drawn. Ranks of a data-parallel
            run that share its seed draw the same layers.

    Raises:
        UserError: the model is not supported, the teacher's layers differ from the student's, or `prob` is no
            probability or has the wrong length.

    >>> model = StochCA(AutoModelForCausalLM.from_pretrained(folder), prob=0.1)
    >>> loss = model.train()(input_ids, attention_mask=mask, labels=labels).loss
    >>> model.student.save_pretrained(folder)
    """

    def __init__(
        self,
        model: LanguageModel,
        prob: float | Sequence[float] = 0.1,
        *,
        teacher: LanguageModel | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_supported(model, "StochCA")
        self.student: LanguageModel = model
        self.num_layers = len(layers_of(model))
        self.prob = one_per_block(prob, self.num_layers)
        if teacher is not None:
            check_supported(teacher, "StochCA")
            check_same_layers(model, teacher)
            receive(teacher)
        receive(model)  # and with it the copy
        base: nn.Module = copy.deepcopy(model.model) if teacher is None else teacher.model
        # In a tuple, it is no submodule: state_dict(), parameters() and train() pass it by.
        self._teacher = (base.requires_grad_(False).eval(),)
        # A stream of its own: the draws must not follow the numbers that dropout uses.
        seed = derived_seed(torch.initial_seed() % 2**64, Stream.DRAWS)
        self.generator = generator or torch.Generator().manual_seed(seed)
        save_tied_once(self)
        self.train(model.training)

    @property
    def teacher(self) -> LanguageModel:
        """The frozen base model; moved along by `.to()`, otherwise out of sight."""
        return self._teacher[0]

    @property
    def wrapped(self) -> LanguageModel:
        return self.student

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        cross_layers: Iterable[int] | None = None,
        **arguments: Any,
    ) -> CausalLMOutputWithPast:
        """What the student gives; arguments are those of its own forward pass.

        `cross_layers` names the layers that cross-attend, in any mode; None draws them while training and
        leaves all to self-attention in evaluation.

        Raises:
            UserError: layers are to cross-attend with tokens in a cache, which the teacher has not seen.
        """
        drawn = self.draw() if cross_layers is None and self.training else self._named(cross_layers or ())
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
        }
        if drawn and past_key_values is not None:
            raise UserError(
                "the teacher has not seen the tokens in past_key_values, so no layer can cross-attend; leave "
                "past_key_values out, or call model.eval() first, in which no layer does"
            )
        if drawn:
            of_both = {name: value for name, value in arguments.items() if name not in OF_THE_ANSWER}
            given = teacher_keys_values(self.teacher, drawn, **inputs, **of_both)
            arguments[ARGUMENT] = FromTeacher(given)
        if drawn or (self.training and past_key_values is None):
            use_cache = bool(use_cache) and not drawn
        return self.student(
            **inputs, past_key_values=past_key_values, labels=labels, use_cache=use_cache, **arguments
        )

    def draw(self) -> list[int]:
        """Draw the layers that cross-attend in one step."""
        chosen = torch.rand(self.num_layers, generator=self.generator) < self.prob
        return chosen.nonzero().flatten().tolist()

    def _named(self, cross_layers: Iterable[int]) -> list[int]:
        layers = sorted(set(cross_layers))
        wrong = [i for i in layers if not 0 <= i < self.num_layers]
        if wrong:
            raise UserError(f"cross_layers {wrong} don't exist; the layers are 0 to {self.num_layers - 1}")
        return layers

    def generate(self, *inputs: Any, **arguments: Any) -> Any:
        """The student's own `generate`, in which every layer attends to itself."""
        return self.student.generate(*inputs, **arguments)

    def get_extra_state(self) -> Tensor:
        """Bytes: where the draws are, and the sha256 of the teacher, of which nothing else is saved."""
        digest = torch.frombuffer(bytearray.fromhex(self.teacher_sha256), dtype=torch.uint8)
        return torch.cat([self.generator.get_state(), digest])

    def set_extra_state(self, state: Tensor) -> None:
        draws, digest = state.cpu()[:-32], bytes(state[-32:].tolist()).hex()
        if digest != self.teacher_sha256:
            raise UserError(
                "the state was saved beside another teacher than this StochCA has; wrap the pretrained model "
                "as it was wrapped then, and load the state after that (where another teacher is meant, "
                "leave _extra_state out of it)"
            )
        self.generator.set_state(draws)

    @cached_property
    def teacher_sha256(self) -> str:
        """As `weights_sha256` gives it."""
        return weights_sha256(self.teacher)

    def _apply(self, fn: Any, recurse: bool = True) -> "StochCA":
        # .to(), .cuda(), .half() and the like take the teacher along.
        self.teacher._apply(fn)
        return super()._apply(fn, recurse)


def check_same_layers(student: LanguageModel, teacher: LanguageModel) -> None:
    """Raise `UserError` naming the first difference of what keys and values depend on."""
    if teacher is student:
        raise UserError("the teacher is the model itself; pass a copy of it, or None to have one made")
    own, others = _what_keys_depend_on(student), _what_keys_depend_on(teacher)
    for name in own | others:
        found, wanted = others.get(name, "missing"), own.get(name, "missing")
        if found != wanted:
            raise UserError(
                f"the teacher differs from the student: {name} is {found} in the teacher, {wanted} in the "
                "student; load both with the same architecture and configuration"
            )


def _what_keys_depend_on(model: LanguageModel) -> dict[str, Any]:
    """Shapes, and what cuts channels into heads and turns them by their position."""
    shapes = {f"the shape of {name}": tuple(p.shape) for name, p in model.model.named_parameters()}
    settings = ("num_attention_heads", "rope_parameters", "layer_types")
    return shapes | {f"config.{name}": getattr(model.config, name, None) for name in settings}
