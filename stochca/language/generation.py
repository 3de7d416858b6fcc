"""Generation with another forward pass than the model's own."""

import copy
from typing import Any

from torch import Tensor

from stochca.errors import UserError
from stochca.language.two_pass_cache import TwoPassCache
from stochca.language.wrapper import LanguageWrapper


def generate(around: LanguageWrapper, inputs: Tensor | None = None, **arguments: Any) -> Any:
    """As the wrapped model's `generate`, each step a forward pass of the wrapper, in evaluation mode.

    Raises:
        UserError: `arguments` name a `cache_implementation`.
    """
    own = arguments.get("generation_config")
    if arguments.get("cache_implementation") or getattr(own, "cache_implementation", None):
        raise UserError("TOAST keeps two dynamic caches, one per pass; leave cache_implementation out")
    # Shares everything with the model but these; no other caller of the model sees them.
    view = copy.copy(around.wrapped)
    view.forward = around.forward
    view.generation_config = copy.deepcopy(view.generation_config)
    view.generation_config.cache_implementation = None
    arguments.setdefault("past_key_values", TwoPassCache(view.config))
    training = around.training
    if training:
        around.eval()  # layers that are checkpointed keep no cache
    try:
        return view.generate(inputs, **arguments)
    finally:
        if training:
            around.train()
