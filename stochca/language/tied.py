"""Tied weights, such as those of the embedding and the language head, stand once in a state."""

from typing import Any

from torch import nn


def save_tied_once(module: nn.Module) -> None:
    """From here on `module.state_dict()` names each tensor once, as the Trainer's safetensors need it.

    States with all names, or with the first of them, load.
    """
    module.register_state_dict_post_hook(_drop)
    module.register_load_state_dict_pre_hook(_fill)


# By name, because what holds on to them can be pickled.
def _drop(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for name in tied_names(module):
        state.pop(f"{prefix}{name}", None)


def _fill(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name, first in tied_names(module).items():
        if f"{prefix}{first}" in state:
            state.setdefault(f"{prefix}{name}", state[f"{prefix}{first}"])


def tied_names(module: nn.Module) -> dict[str, str]:
    """Further names of a parameter: its first name."""
    first = {id(parameter): name for name, parameter in module.named_parameters()}
    names = {name: first[id(p)] for name, p in module.named_parameters(remove_duplicate=False)}
    return {name: kept for name, kept in names.items() if name != kept}
