"""Stands where a model of `transformers` stands: what is asked of that model, a module around it answers."""

from typing import Any

from torch import nn

from stochca.errors import UserError
from stochca.language.support import LanguageModel
from stochca.timm_models.wrapper import refuse_to_replace

# What the Trainer asks of a model.
HANDED_ON = frozenset({"config", "generation_config", "device", "dtype", "main_input_name"})


class LanguageWrapper(nn.Module):
    """A module around a model of `transformers`."""

    @property
    def wrapped(self) -> LanguageModel:
        """The model itself."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        """What nn.Module does not find: the model's own, where it is among what is handed on."""
        return getattr(self.wrapped, name) if name in HANDED_ON else super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        """What the model has and the wrapper has not is set in the model: `generation_config`, for one."""
        refuse_to_replace(self, name)
        model = getattr(self, "wrapped", None)
        if hasattr(model, name) and name not in dir(self):
            setattr(model, name, value)
        else:
            super().__setattr__(name, value)

    def _get_name(self) -> str:
        """The model's: by it the Trainer, where it smooths labels, knows that it has to shift them."""
        return self.wrapped._get_name()

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {super().__repr__()}"

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, **others: Any
    ) -> None:
        """As the model's own: layers are computed again in the backward pass, while training."""
        self.wrapped.activation_checkpointing_enable(activation_checkpointing_kwargs, **others)

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None, **others: Any
    ) -> None:
        """The older name of `activation_checkpointing_enable`."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **others)

    def gradient_checkpointing_disable(self) -> None:
        self.wrapped.gradient_checkpointing_disable()

    def _replicate_for_data_parallel(self) -> Any:
        raise UserError(
            f"nn.DataParallel can't run {type(self).__name__} on several devices: its frozen model is on the "
            "first; use one process per device (torchrun), or let it see one device (CUDA_VISIBLE_DEVICES=0)"
        )
