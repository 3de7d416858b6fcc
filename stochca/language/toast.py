"""Top-down attention for language models (TOAST: Shi et al., arXiv 2305.15542, the part on LLaMA).

A frozen decoder-only transformer reads its tokens twice. What the first pass made of a token, before the
final norm, is weighted by its likeness to a learned task vector, and travels down through one decoder per
layer, from the last to the first. What each decoder emits is added, in the second pass, to the normalised
hidden states that enter its layer's `v_proj`; queries and keys are as ever. The feedback of a token depends
on that token's own output of the first pass, so that no output depends on a later token.

Shapes: B sequences, N tokens, D channels, L layers, H heads.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from stochca.adapters.adapted import trunc_normal
from stochca.adapters.low_rank import inject
from stochca.adapters.toast import Decoder
from stochca.errors import UserError
from stochca.language.files import CARD, TENSORS, read_adapter, read_tensors, write_adapter, write_tensors
from stochca.language.generation import generate
from stochca.language.handing_down import ARGUMENT, OF_THE_ANSWER, receive
from stochca.language.identity import identity_of
from stochca.language.passes import FirstPass, SecondPass
from stochca.language.reconstruction import reconstruction_loss, share_of_batch
from stochca.language.support import LanguageModel, check_supported, layers_of
from stochca.language.two_pass_cache import TwoPassCache
from stochca.language.wrapper import LanguageWrapper
from stochca.timm_models.threads import alone_with


@dataclass
class TOASTOutput(CausalLMOutputWithPast):
    """What the model gives in its second pass."""

    reconstruction: Tensor | None = None  # the part of `loss` that is not cross-entropy, in training mode


class TOAST(LanguageWrapper):
    """Wrap a pretrained language model so that its top-down attention learns, and nothing else.

    The model is frozen, and out of this module's parameters and state: what an optimiser, a checkpoint or the
    Trainer sees is the adapter alone. `learn` says what of it learns.

    Args:
        model: a decoder-only model of `transformers` that shares LLaMA's layout, with its language head.
        rank: TOAST-Lite: the decoders learn low-rank updates alone (through `peft`). None: TOAST.
        alpha: these updates count alpha / rank.
        decoders: a file of `save_decoders`, pre-tuned for this model; None: they start at random, as in the
            paper, and the second pass differs from the first.
        plain_start: what the decoders emit starts at zero, and the model as it is; ours, for short training.

    Raises:
        UserError: the model is not supported, or the decoders are another model's.

    >>> toast = TOAST(AutoModelForCausalLM.from_pretrained(folder), decoders=Path("decoders.safetensors"))
    >>> loss = toast.train()(input_ids, attention_mask=mask, labels=labels).loss
    >>> toast.eval().generate(input_ids, attention_mask=mask, max_new_tokens=64)
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        rank: int | None = None,
        alpha: float = 4.0,
        decoders: Path | str | None = None,
        plain_start: bool = False,
    ) -> None:
        super().__init__()
        check_supported(model, "TOAST")
        if rank is not None and rank < 1:
            raise UserError(
                f"rank must be 1 or more, or None for TOAST without low-rank updates, found {rank}"
            )
        if plain_start and decoders is not None:
            raise UserError("plain_start is for decoders that start anew; leave it or decoders out")
        # In a tuple, it is no submodule: state_dict(), parameters() and train() pass it by.
        self._backbone = (model.requires_grad_(False).eval(),)
        receive(model)
        dim = model.config.hidden_size
        self.rank, self.alpha = rank, alpha
        self.decoders = nn.ModuleList(Decoder(dim) for _ in layers_of(model))
        self.task = trunc_normal(dim)  # ξ
        self.transform = nn.Parameter(torch.eye(dim))  # P
        if plain_start:
            for decoder in self.decoders:
                nn.init.zeros_(decoder.get_parameter("emit.weight"))
        self.pretuned, self.told_of_labels = decoders is not None, False
        if decoders is not None:
            advice = "pre-tune decoders for this model, and save them with save_decoders"
            self._load(read_tensors(Path(decoders), model, advice), str(decoders), advice)
        if rank is not None:
            names = [name for name, module in self.decoders.named_modules() if isinstance(module, nn.Linear)]
            inject(self.decoders, names, rank=rank, alpha=alpha)
        super()._apply(lambda tensor: tensor.to(model.device))  # the model stays where it is
        self.learn("task")
        self.eval()

    @property
    def backbone(self) -> LanguageModel:
        """The frozen model; moved along by `.to()`, otherwise out of sight."""
        return self._backbone[0]

    @property
    def wrapped(self) -> LanguageModel:
        return self.backbone

    def learn(self, what: Literal["task", "decoders"]) -> None:
        """Choose what learns.

        "task", as after construction: what the decoders emit (of a TOAST-Lite: the low-rank updates of all
        that they are made of), and the task vector ξ. "decoders", for pre-tuning: all of the decoders, the
        transform P and ξ.

        Raises:
            UserError: a TOAST-Lite can't be pre-tuned, or `what` is neither.
        """
        if what not in ("task", "decoders"):
            raise UserError(f"learn takes 'task' or 'decoders', found {what!r}")
        if what == "decoders" and self.rank is not None:
            raise UserError(
                "the decoders of a TOAST-Lite learn low-rank updates alone; pre-tune those of TOAST(model), "
                "save them with save_decoders, and pass the file: TOAST(model, rank=..., decoders=...)"
            )
        self.learning = what
        self.pretuned |= what == "decoders"
        self.requires_grad_(what == "decoders")
        self.task.requires_grad_(True)
        updates = "emit" if self.rank is None else "lora_"
        for name, parameter in self.decoders.named_parameters():
            if f".{updates}" in name:
                parameter.requires_grad_(True)

    def train(self, mode: bool = True) -> "TOAST":
        super().train(mode)
        # Where checkpointing is on, it asks for a layer's mode; the layer's parts stay in evaluation mode.
        for layer in layers_of(self.backbone):
            layer.training = mode
        return self

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **arguments: Any,
    ) -> TOASTOutput:
        """What the model gives in its second pass; arguments are those of the model's own forward pass.

        Args:
            input_ids: (B, N).
            attention_mask: (B, N, or the tokens in the cache and N), 0 where padding is, left or right.
            labels: (B, N), -100 where nothing is to be learned. The loss is the model's cross-entropy; in
                training mode the reconstruction term is added.
            past_key_values: a `TwoPassCache`; None makes one where `use_cache` says so.

        Raises:
            UserError: the decoders learn, and there are no labels, or the cache is another.
        """
        if labels is None and self.training and self.learning == "decoders":
            raise UserError(
                "TOAST's decoders learn by the loss that it makes itself, of labels, and found none; pass "
                "labels, and leave out what takes them away (label_smoothing_factor, compute_loss_func)"
            )
        self._warn_once(labels)
        cache = self._cache(past_key_values, use_cache)
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
            "use_cache": cache is not None,
        }
        of_both = {name: value for name, value in arguments.items() if name not in OF_THE_ANSWER}
        first_cache = None if cache is None else cache.first
        seen_BND, _ = self._first_pass(**inputs, past_key_values=first_cache, **of_both)
        training = self.training and labels is not None
        second = SecondPass(self.feedback(seen_BND), recorded=training)
        output = self.backbone(
            **inputs,
            past_key_values=cache,
            labels=labels,
            logits_to_keep=logits_to_keep,
            **{ARGUMENT: second},
            **{**arguments, "return_dict": True},
        )
        output = TOASTOutput(**output)
        if training:
            assert labels is not None
            term = reconstruction_loss(self.decoders, second.given, second.gave, attention_mask)
            output.reconstruction = term * share_of_batch(labels, **arguments)
            output.loss = output.loss + output.reconstruction
        return output.to_tuple() if arguments.get("return_dict") is False else output

    @torch.no_grad()
    def _first_pass(self, **arguments: Any) -> tuple[Tensor, Any]:
        """The last layer's outputs (B, N, D), before the final norm; and what the model says of the pass."""
        first = FirstPass()
        output = self.backbone.model(**arguments, **{ARGUMENT: first})
        return first.last_BND, output

    def feedback(self, seen_BND: Tensor) -> list[Tensor]:
        """What each layer's decoder emits, (B, N, D), of what the first pass gave."""
        seen_BND = seen_BND.to(self.task)
        likeness_BN = functional.cosine_similarity(seen_BND, self.task, dim=-1).clamp(0, 1)
        signal_BND = (seen_BND * likeness_BN[..., None]) @ self.transform
        emitted = []
        for decoder in reversed(self.decoders):
            signal_BND, emitted_BND = decoder(signal_BND)
            emitted.append(emitted_BND)
        return emitted[::-1]

    def _cache(self, given: Cache | None, use_cache: bool | None) -> TwoPassCache | None:
        if use_cache is None:
            use_cache = given is not None or (not self.training and bool(self.backbone.config.use_cache))
        if not use_cache:
            return None
        if given is not None and not isinstance(given, TwoPassCache):
            raise UserError(
                f"TOAST keeps two caches, one per pass, but past_key_values is a {type(given).__name__}; "
                "pass a stochca.language.two_pass_cache.TwoPassCache(model.config), or None to have one made"
            )
        return TwoPassCache(self.backbone.config) if given is None else given

    def _warn_once(self, labels: Tensor | None) -> None:
        if self.training and self.learning == "task" and not self.pretuned:
            self.pretuned = True
            warnings.warn(
                "TOAST's decoders were not pre-tuned for this model, which the method needs to reach what "
                'its paper reports; pre-tune them: learn("decoders"), train, save_decoders, and pass the '
                "file as decoders",
                stacklevel=3,
            )
        if self.training and self.rank is not None and labels is None and not self.told_of_labels:
            self.told_of_labels = True
            warnings.warn(
                "TOAST-Lite learns by the reconstruction term too, which it makes of labels, and found none; "
                "pass labels, and leave out what takes them away (label_smoothing_factor, compute_loss_func)",
                stacklevel=3,
            )

    def generate(self, inputs: Tensor | None = None, **arguments: Any) -> Any:
        """As the model's own `generate`, with both passes cached: greedy, sampling, beams.

        It runs in evaluation mode. Raises `UserError` where `arguments` name a `cache_implementation`.
        """
        return generate(self, inputs, **arguments)

    @torch.no_grad()
    def attention_maps(
        self, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attention probabilities (L, B, H, N, N) of the first and of the second pass; a row is a query's.

        The model's attention kernel is another meanwhile: no other thread should run it.
        """
        model = self.backbone
        before = model.config._attn_implementation
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
        with alone_with(model):
            model.set_attn_implementation("eager")  # no other says what it attended to
            try:
                seen_BND, first = self._first_pass(**inputs, output_attentions=True)
                second = model.model(
                    **inputs, output_attentions=True, **{ARGUMENT: SecondPass(self.feedback(seen_BND))}
                )
            finally:
                model.set_attn_implementation(before)
        return torch.stack(first.attentions), torch.stack(second.attentions)

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, **others: Any
    ) -> None:
        """As the model's own. Raises `UserError` for use_reentrant, which loses the feedback's gradients."""
        settings = {"use_reentrant": False, **(activation_checkpointing_kwargs or {})}
        if settings["use_reentrant"]:
            raise UserError(
                "with use_reentrant=True checkpointing passes gradients to the inputs of a layer alone, and "
                "not to TOAST's feedback; set use_reentrant to False in gradient_checkpointing_kwargs"
            )
        super().activation_checkpointing_enable(settings, **others)

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the adapter, without the model: `adapter.safetensors` and `adapter.json`."""
        options = {"rank": self.rank, "alpha": self.alpha}
        write_adapter(Path(folder), self.state_dict(), options, self.backbone)

    @classmethod
    def from_pretrained(cls, model: LanguageModel, folder: Path | str) -> "TOAST":
        """Put an adapter of `save_pretrained` on the model that it was made for.

        Raises:
            UserError: the folder is incomplete or damaged, or its adapter is another model's.
        """
        tensors, options = read_adapter(Path(folder), model)
        try:
            toast = cls(model, **options)
        except TypeError as error:
            raise UserError(f"{Path(folder) / CARD} is no TOAST's: {error}") from None
        toast._load(tensors, str(Path(folder) / TENSORS), "save the adapter again, with save_pretrained")
        toast.pretuned = True
        return toast

    def save_decoders(self, path: Path | str) -> None:
        """Write the pre-tuned decoders, P and ξ, a safetensors file that knows its model.

        Raises:
            UserError: this is a TOAST-Lite, whose decoders others can't start from.
        """
        if self.rank is not None:
            raise UserError(
                "the decoders of a TOAST-Lite hold low-rank updates, and others can't start from them; use "
                "save_pretrained"
            )
        write_tensors(Path(path), self.state_dict(), identity_of(self.backbone))

    def _load(self, tensors: dict[str, Tensor], name: str, advice: str) -> None:
        try:
            self.load_state_dict(tensors)
        except RuntimeError as error:
            raise UserError(f"{name} does not fit ({' '.join(str(error).split())}); {advice}") from None

    def _apply(self, fn: Any, recurse: bool = True) -> "TOAST":
        # .to(), .cuda(), .half() and the like take the model along.
        self.backbone._apply(fn)
        return super()._apply(fn, recurse)
