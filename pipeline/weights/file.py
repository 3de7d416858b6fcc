"""`file:PATH`: a safetensors file, a checkpoint of timm or torch, or a wheel fetched by other means."""

import pickle
from pathlib import Path

from safetensors import SafetensorError
from timm.models import load_state_dict
from torch import Tensor

from pipeline.weights.weights import Weights, check_sha256, log
from pipeline.weights.wheel import read_wheel
from stochca.errors import UserError

CHECKPOINTS = (".safetensors", ".pth", ".pt", ".bin", ".tar")


def read_file(path: Path, source: str, sha256: str | None) -> Weights:
    """Read the weights of a local file; nothing but tensors is ever unpickled.

    Raises:
        UserError: the file is missing, of another kind, not the pinned one, damaged, or no checkpoint.
    """
    allowed = ", ".join([*CHECKPOINTS, ".whl"])
    if not path.is_file():
        raise UserError(
            f"backbone.weights is {source}, but there is no such file; give the path of one of {allowed}"
        )
    if path.suffix not in (*CHECKPOINTS, ".whl"):
        raise UserError(
            f"backbone.weights is {source}, which is none of {allowed}; convert it to .safetensors"
        )
    found = check_sha256(path, sha256, str(path))
    log(f"reading {path}, {path.stat().st_size / 1e6:.1f} MB, sha256 {found}")
    if path.suffix == ".whl":
        return read_wheel(path, source)
    return Weights(_read_checkpoint(path), source, found, license=None)


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The state dict, taken by timm out of `state_dict`, `model`, `state_dict_ema` and the like."""
    try:
        state_dict = load_state_dict(str(path), weights_only=True)
    except (
        RuntimeError,
        pickle.UnpicklingError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        SafetensorError,
    ) as error:
        if isinstance(error.__cause__, pickle.UnpicklingError):
            raise UserError(
                f"{path} is no checkpoint of tensors: it is damaged, or holds pickled objects that were not "
                "opened because unpickling them can run code; save its state dict alone, best as .safetensors"
            ) from error
        raise UserError(f"{path} can't be read as a checkpoint: {' '.join(str(error).split())}") from error
    except AttributeError:
        state_dict = {}  # no dictionary at all
    tensors = {name: value for name, value in state_dict.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(map(str, list(state_dict)[:5])) or "none"
        raise UserError(
            f"{path} holds no state dict, neither at its top nor under state_dict, model, state_dict_ema or "
            f"model_ema; its keys are: {keys}"
        )
    return tensors
