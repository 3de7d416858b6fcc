"""Which number format a run computes in, and which attention kernel is fastest there."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from stochca.errors import UserError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(setting: str, device: torch.device) -> str:
    """`auto` is bf16 where the device computes in it natively, fp32 elsewhere.

    Raises:
        UserError: fp16 on a CPU, which has no loss scaling.
    """
    if setting == "fp16" and device.type == "cpu":
        raise UserError("training.precision fp16 needs a GPU; choose auto, fp32 or bf16")
    if setting != "auto":
        return setting
    return "bf16" if _has_native_bf16(device) else "fp32"


def _has_native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, _DTYPES[precision], enabled=precision != "fp32")


def choose_attention_kernel(model: nn.Module, precision: str, device: torch.device) -> None:
    """Use plain matrix products where they were measured to be faster than fused attention.

    `benchmarks/step.py` repeats the measurement.
    """
    if device.type == "cpu" and precision == "bf16":
        for module in model.modules():
            if hasattr(module, "fused_attn"):
                setattr(module, "fused_attn", False)  # noqa: B010 (typed as Final by timm)


@contextmanager
def attention_kernel(model: nn.Module, *, fused: bool) -> Iterator[None]:
    """Every attention of the model goes through torch's own function meanwhile, or through none of it."""
    modules = [module for module in model.modules() if hasattr(module, "fused_attn")]
    before = [getattr(module, "fused_attn") for module in modules]  # noqa: B009 (typed as Final by timm)
    try:
        for module in modules:
            setattr(module, "fused_attn", fused)  # noqa: B010
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            setattr(module, "fused_attn", value)  # noqa: B010


def store_in_half(model: nn.Module, precision: str) -> None:
    """Keep the weights of a frozen model's projections in the numbers that autocast multiplies them in.

    It would make them from fp32 in every forward pass, because it remembers only those of weights that
    train: the results are the same, and the memory is half. Norms stay in fp32, as in autocast.
    """
    if precision != "fp32":
        for module in model.modules():
            if type(module) in (nn.Linear, nn.Conv2d):  # subclasses may do more with their weights
                module.to(_DTYPES[precision])
