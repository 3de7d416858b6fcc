"""State dicts of what was around a model: a compiled or data-parallel one, a task, another model's part.

There, the names that the model has begin with a prefix (`module.`, `model.student.`), and other tensors may
stand beside it.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping

from torch import Tensor

from stochca.errors import UserError

# What compiled, checkpointed and sharded parts are called inside of a model.
_AROUND_PARTS = re.compile(r"(^|(?<=\.))(_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.")


def without_prefix(
    state_dict: Mapping[str, Tensor], names: Collection[str], source: str
) -> dict[str, Tensor]:
    """The tensors of the one model in a state dict, under its own names.

    Args:
        names: most of them; a prefix is what stands before more than half of these.
        source: what the sentence of the error calls the state dict.

    Raises:
        UserError: it holds several models, or updates that LoRA has not merged into the weights.
    """
    tensors = {_AROUND_PARTS.sub("", name): tensor for name, tensor in state_dict.items()}
    known, found = set(names), Counter[str]()
    for name in tensors:
        parts = name.split(".")
        for i in range(len(parts)):
            if ".".join(parts[i:]) in known:
                found[".".join([*parts[:i], ""]).removeprefix(".")] += 1
    prefixes = [prefix for prefix, count in found.items() if count > len(known) / 2]
    if len(prefixes) > 1:
        places = ", ".join(prefix or "no prefix" for prefix in prefixes)
        raise UserError(
            f"{source} holds {len(prefixes)} models, under {places}; save the state dict of one of them alone"
        )
    if any(".lora_" in name for name in tensors):
        raise UserError(
            f"{source} holds updates of LoRA beside the weights, or without them; merge them into the model "
            "(peft's merge_and_unload) and save its state dict"
        )
    if prefixes in ([], [""]):
        return tensors
    (prefix,) = prefixes
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
