"""Data-parallel training: what `torchrun` or Ray Train has set up is used; nothing is launched here.

Every process (rank) holds the whole model and takes its share of every batch. A script for `torchrun` needs

>>> torch.distributed.init_process_group()           # gloo on CPUs, nccl on GPUs
>>> torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # on GPUs
>>> fit(...)                                         # on every rank, with the same arguments

Without torch.distributed everything here stands for a single process. All but `rank`, `world_size`,
`is_main` and the shares must be called by all ranks together.

Batch normalisation, which a few families have, looks at each rank's share of a batch by itself.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from stochca.compute.checkpoint import put_together, take_apart

Value = TypeVar("Value")


def is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    return distributed.get_rank() if is_distributed() else 0


def world_size() -> int:
    """The number of ranks."""
    return distributed.get_world_size() if is_distributed() else 1


def is_main() -> bool:
    """Whether this process is the one that writes and reports."""
    return rank() == 0


def data_parallel(model: nn.Module) -> nn.Module:
    """The model whose backward pass averages gradients over the ranks; on one rank, the model itself.

    Sums of three numbers or more depend on their order, and torch regroups the gradients after its first
    step, which after an interruption is another one. It doesn't where it looks for unused parameters (there
    are none, as it then remarks once), so that resuming is exact with any number of ranks.
    """
    if world_size() == 1:
        return model
    return DistributedDataParallel(model, find_unused_parameters=world_size() > 2)


def averaging_gradients(model: nn.Module, now: bool) -> AbstractContextManager[Any]:
    """Around a forward and backward pass: average its gradients `now`, or with those of a later pass."""
    if now or not isinstance(model, DistributedDataParallel):
        return nullcontext()
    return model.no_sync()


def joined(share: Tensor) -> Tensor:
    """What the ranks have of their shares of images, one below the other, on every rank."""
    return torch.cat(gathered(share))


def gathered(value: Value) -> list[Value]:
    """The values of all ranks, on every rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def mean_over_ranks(value: Tensor) -> Tensor:
    if world_size() > 1:
        distributed.all_reduce(value)
        value /= world_size()
    return value


def share_statistics(model: nn.Module) -> None:
    """Give every rank rank 0's running statistics of batch normalisation.

    `DistributedDataParallel` does so before a step, which is too late for an evaluation.
    """
    if world_size() > 1:
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                distributed.broadcast(buffer, src=0)


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Of parameters that no data-parallel model knows of."""
    for parameter in parameters:
        if parameter.grad is not None:
            mean_over_ranks(parameter.grad)


def from_main(value: Value, device: torch.device) -> Value:
    """Rank 0's nest of dicts, lists, tensors and plain values, on every rank; its tensors on the CPU.

    Tensors travel one by one over `device`, which need not hold a large checkpoint twice.
    """
    if world_size() == 1:
        return value
    tensors: dict[str, Tensor] = {}
    structure = take_apart(value, tensors) if is_main() else None
    box: list[Any] = [(structure, {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()})]
    distributed.broadcast_object_list(box, src=0)
    structure, kinds = box[0]
    for name, (shape, dtype) in kinds.items():
        tensor = tensors[name].to(device) if is_main() else torch.empty(shape, dtype=dtype, device=device)
        distributed.broadcast(tensor, src=0)
        tensors[name] = tensor.cpu()
    return put_together(structure, tensors.__getitem__)
