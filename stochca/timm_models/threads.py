"""One thread at a time, where a forward pass exchanges parts of a model that all threads see."""

from contextlib import AbstractContextManager, nullcontext
from threading import Lock, RLock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

# Not in the models, which are copied, pickled and shared between wrappers.
_LOCKS: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
_LOOKING_UP = Lock()


def alone_with(model: nn.Module) -> AbstractContextManager[Any]:
    """Within, no other thread is within with the same model; the thread itself may enter again."""
    if torch.compiler.is_compiling():  # a trace is one thread's
        return nullcontext()
    with _LOOKING_UP:
        return _LOCKS.setdefault(model, RLock())
