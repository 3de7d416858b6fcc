"""A second device for PyTorch that keeps its numbers on the CPU and refuses to mix with it, as a GPU does.

>>> with pretended() as device:
...     model.to(device)(images)            # RuntimeError: the images are on the CPU
...     model(images.to(device))            # computes what the CPU computes

It stands on PyTorch's room for other makers' devices: a tensor on it is a shell that reports the device,
around one on the CPU, and every operation goes through `_run`. What is drawn, and in which order, is the same
as on the CPU, so that results can be compared number by number. Left out are autocast and compilation.
"""

import os
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
REAL = os.environ.get("STOCHCA_TEST_DEVICE")  # such as cuda
CPU = torch.device("cpu")
# These may meet both devices: copies, and indices, which PyTorch moves itself.
MIXED = (
    torch.ops.aten.copy_.default,
    torch.ops.aten._to_copy.default,
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
    torch.ops.aten._index_put_impl_.default,
)
Generator = torch.Generator


_make = torch.tensor


class _State:
    is_on = False
    generators: ClassVar[dict[int, Generator]] = {}  # of the device, by what PyTorch knows them by


class _Hooks(torch._C._acc.PrivateUse1Hooks):
    def is_available(self) -> bool:
        return _State.is_on

    def has_primary_context(self, index: int) -> bool:
        return True

    def is_built(self) -> bool:
        return True


def _module() -> types.ModuleType:
    """What `torch.cuda` is for a GPU."""
    module = types.ModuleType(f"torch.{NAME}")
    functions: dict[str, Any] = {
        "is_available": lambda: _State.is_on,
        "is_initialized": lambda: True,
        "device_count": lambda: int(_State.is_on),
        "current_device": lambda: 0,
        "manual_seed_all": lambda seed: None,
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "set_rng_state": lambda state, *_: torch.set_rng_state(state),
        "get_amp_supported_dtype": lambda: [torch.bfloat16, torch.float16],
        "_is_in_bad_fork": lambda: False,
    }
    vars(module).update(functions)
    return module


_setup_privateuseone_for_python_backend(NAME, _module(), _Hooks())
DEVICE = torch.device(NAME, 0)
_LIBRARY = torch.library.Library("_", "IMPL")
_LIBRARY.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")


class PretendTensor(Tensor):
    """The shell; `inside` has the numbers."""

    inside: Tensor

    @staticmethod
    def __new__(cls, inside: Tensor) -> "PretendTensor":
        shell = Tensor._make_wrapper_subclass(
            cls,
            inside.size(),
            strides=inside.stride(),
            storage_offset=inside.storage_offset(),
            dtype=inside.dtype,
            device=DEVICE,
        )
        shell.inside = inside
        return shell

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"PretendTensor({self.inside})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, **_: object) -> Any:
        raise TypeError(f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu() first")

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return _run(function, args, kwargs or {})


class _Generator(Generator):
    """Of the device, it draws what one on the CPU draws, for tensors on the device alone."""

    def __new__(cls, device: Any = "cpu") -> Any:
        on_device = torch.device(device).type == NAME
        generator = Generator(CPU if on_device else device)
        if on_device:
            _State.generators[_identity(generator)] = generator
        return generator


def _identity(generator: Any) -> int:
    """What PyTorch knows it by, whichever Python object it is handed over as."""
    return generator._cdata


def _tensor(data: Any, *, device: Any = None, **options: Any) -> Tensor:
    made = torch.as_tensor(data, **options).clone() if isinstance(data, Tensor) else _make(data, **options)
    return made if device is None else made.to(device)


class _EveryOperation(TorchDispatchMode):
    """Those too that make a tensor out of nothing or move one."""

    def __torch_dispatch__(
        self, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return _run(function, args, kwargs or {})


def _run(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Compute on the CPU; answer on the device that the operation is on.

    Raises:
        RuntimeError: tensors, or a tensor and a generator, are on different devices.
    """
    leaves = tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    shells = [tensor for tensor in tensors if isinstance(tensor, PretendTensor)]
    device = kwargs.get("device")
    if function is torch.ops.aten.copy_.default:
        on_device = isinstance(args[0], PretendTensor)
    else:
        on_device = bool(shells) if device is None else torch.device(device).type == NAME
    # PyTorch lets single numbers on the CPU be beside anything.
    others = [tensor for tensor in tensors if not isinstance(tensor, PretendTensor) and tensor.dim()]
    if shells and others and function not in MIXED:
        raise RuntimeError(
            f"{function}: expected all tensors to be on the same device, found one on the CPU of shape "
            f"{tuple(others[0].shape)} and one on {DEVICE} of shape {tuple(shells[0].shape)}"
        )
    for generator in (leaf for leaf in leaves if isinstance(leaf, Generator)):
        if (_identity(generator) in _State.generators) != on_device:
            raise RuntimeError(f"{function}: the generator and what is drawn are on different devices")
    if device is not None:
        kwargs = {**kwargs, "device": CPU if on_device else device}
    inside_args, inside_kwargs = tree_map(_inside, (args, dict(kwargs)))
    changed = {id(shell.inside): shell for shell in shells}  # in place: the same shell is the answer

    def answer(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) in changed:
            return changed[id(value)]
        return PretendTensor(value) if on_device else value

    return tree_map(answer, function(*inside_args, **inside_kwargs))


def _inside(value: Any) -> Any:
    return value.inside if isinstance(value, PretendTensor) else value


@contextmanager
def pretended() -> Iterator[torch.device]:
    """The device, which is there inside alone, as the one that torch prefers; or a real one."""
    if REAL:
        yield torch.device(REAL)
        return
    with (
        pytest.MonkeyPatch.context() as patch,
        torch.autograd.set_multithreading_enabled(False),  # there are no streams to wait for
        _EveryOperation(),
    ):
        patch.setattr(_State, "is_on", True)
        patch.setattr(torch, "Generator", _Generator)
        patch.setattr(torch, "tensor", _tensor)
        yield DEVICE
