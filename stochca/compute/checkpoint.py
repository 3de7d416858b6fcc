"""Everything a run needs to continue, in one safetensors file that is never half-written.

Tensors are stored as such; the structure around them goes into the file's header as JSON, so that
loading never unpickles anything.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

CHECKPOINT = "checkpoint.safetensors"
PREVIOUS = "previous.safetensors"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> Path:
    """Write `state`, a nest of dicts, lists, tensors and plain values; the one before is kept beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(take_apart(state, tensors))
    path = folder / CHECKPOINT
    temporary = folder / f".{CHECKPOINT}.tmp"
    save_file(tensors, temporary, metadata={"structure": structure})
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    if path.exists():
        path.replace(folder / PREVIOUS)
    temporary.replace(path)
    return path


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None."""
    for path in (folder / CHECKPOINT, folder / PREVIOUS):
        try:
            with safe_open(path, framework="pt") as file:
                structure = json.loads(file.metadata()["structure"])
                state = put_together(structure, file.get_tensor)
                assert isinstance(state, dict)
                return state
        except FileNotFoundError:
            continue
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            print(f"{path} can't be read ({error}); trying the checkpoint before it", flush=True)
    return None


def is_checkpoint(path: Path) -> bool:
    """Whether a file is one that `save_checkpoint` wrote."""
    try:
        with safe_open(path, framework="pt") as file:
            return "structure" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def take_apart(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The structure of a nest, as JSON knows it; copies of its tensors go into `tensors`, by name."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # A copy, because safetensors refuses tensors that share memory.
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, take_apart(item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [take_apart(item, tensors) for item in value]}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    return value


def put_together(value: Any, tensor: Callable[[str], Tensor]) -> Any:
    """The nest again, from its structure and the tensor of each name."""
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensor(value["tensor"])
    if "dict" in value:
        return {key: put_together(item, tensor) for key, item in value["dict"]}
    if "dtype" in value:
        return getattr(torch, value["dtype"])
    if "tuple" in value:
        return tuple(put_together(item, tensor) for item in value["tuple"])
    return [put_together(item, tensor) for item in value["list"]]


def cloned(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A copy that later optimiser steps don't change."""
    return {name: value.detach().clone() for name, value in weights.items()}


def save_weights(path: Path, weights: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write plain weights, atomically."""
    temporary = path.with_name(f".{path.name}.tmp")
    weights = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    save_file(weights, temporary, metadata=metadata)
    temporary.replace(path)


def to_device(value: Any, device: torch.device) -> Any:
    """The same nest with its tensors on `device`."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(to_device(item, device) for item in value)
    return value
