"""Stands where a timm model stands: what others ask of that model, a module around it answers."""

from collections.abc import Callable
from typing import Any

from timm.models import group_parameters
from torch import nn

from stochca._typing import TimmModule
from stochca.errors import UserError

# What timm's own code and training scripts ask of a model. Not the passes that a wrapper would have to
# change and doesn't (`forward_intermediates`), and not what would change the model behind its back.
HANDED_ON = frozenset(
    {
        "pretrained_cfg",
        "default_cfg",
        "pretrained_model_args",
        "_model_args",
        "_traits",
        "dynamic_img_size",
        "in_chans",
        "num_classes",
        "num_features",
        "head_hidden_size",
        "embed_dim",
        "num_prefix_tokens",
        "global_pool",
        "feature_info",
        "grad_checkpointing",
        "set_grad_checkpointing",
        "get_classifier",
        "reset_classifier",
        "forward_head",
        "head",
    }
)


class Wrapper(nn.Module):
    """A module around a timm model, whose parameters have longer names here."""

    wrapped: str  # the name of the submodule that is the timm model

    def __getattr__(self, name: str) -> Any:
        """What nn.Module does not find: the model's own, where it is among what is handed on."""
        modules = self.__dict__.get("_modules", {})  # empty while a pickle or a copy is being put together
        if name in HANDED_ON and self.wrapped in modules:
            return getattr(modules[self.wrapped], name)
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        """What the model has and the wrapper has not is set in the model: `head`, for one."""
        refuse_to_replace(self, name)
        model = self.__dict__.get("_modules", {}).get(self.wrapped)
        if hasattr(model, name) and name not in dir(self):
            setattr(model, name, value)
        else:
            super().__setattr__(name, value)

    def no_weight_decay(self) -> set[str]:
        """Names, or patterns of names, of the parameters that should not decay."""
        names: set[str] = getattr(self.get_submodule(self.wrapped), "no_weight_decay", set)()
        return {f"{self.wrapped}.{name}" for name in names}

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """The layer of a parameter; what is not the model's own learns as the head does."""
        model: TimmModule = self.get_submodule(self.wrapped)
        layers = group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
        last = max(layers.values())

        def layer(name: str) -> int:
            return layers.get(name.removeprefix(f"{self.wrapped}."), last)

        return layer


def refuse_to_replace(module: nn.Module, name: str) -> None:
    """Raise `UserError` where `name` is a property: nn.Module would keep a model there that nothing reads."""
    found = getattr(type(module), name, None)
    if isinstance(found, property) and found.fset is None:
        kind = type(module).__name__
        raise UserError(f"the {name} of a {kind} can't be replaced; make a new {kind} with the other one")
