"""How many stages run side by side, and what each of them may use."""

import os
from collections.abc import Mapping

from stochca.compute.cores import cores_of_process
from stochca.errors import UserError


def slot_environments(count: int | None = None) -> list[Mapping[str, str]]:
    """A slot for each stage that runs at once: the environment variables that its commands get.

    With GPUs there is a slot for each of them, or as many as asked for, among which the GPUs are shared out.
    Without, there is one that may use every core, or several that share the cores.

    Raises:
        UserError: fewer than one are asked for.
    """
    if count is not None and count < 1:
        raise UserError(f"slots must be 1 or more, found {count}; leave it out for one per GPU")
    if gpus := visible_gpus():
        count = count or len(gpus)
        shares = [gpus[slot::count] or [gpus[slot % len(gpus)]] for slot in range(count)]
        return [{"CUDA_VISIBLE_DEVICES": ",".join(share)} for share in shares]
    count = count or 1
    if count == 1 or "OMP_NUM_THREADS" in os.environ:
        return [{}] * count
    return [{"OMP_NUM_THREADS": str(max(1, cores_of_process() // count))}] * count


def visible_gpus() -> list[str]:
    """As CUDA_VISIBLE_DEVICES would name them; those it names where it is set."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []  # no NVIDIA driver
    try:
        return [str(index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()
