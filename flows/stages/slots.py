"""How many stages run side by side, and what each of them may use."""

import math
import os
from collections.abc import Mapping

from pipeline.config.sections import Workers
from pipeline.training.cluster import LOCAL
from stochca.compute.cores import cores_of_process
from stochca.errors import UserError


def slot_environments(count: int | None = None, needed: int = 1) -> list[Mapping[str, str]]:
    """A slot for each stage that runs at once: the environment variables that its commands get.

    With GPUs there is a slot for each, or for `needed` of them, or as many as asked for, among which they are
    shared out. Without, there is one that may use every core, or several that share the cores.

    Raises:
        UserError: fewer than one are asked for, or so many that none has the GPUs that are needed.
    """
    if count is not None and count < 1:
        raise UserError(f"slots must be 1 or more, found {count}; leave it out for one per GPU")
    if gpus := visible_gpus():
        most = max(1, len(gpus) // needed)
        if needed > 1 and count is not None and count > most:
            raise UserError(
                f"slots {count} share {len(gpus)} GPUs, but workers of params.yaml need {needed} in each; "
                f"set slots to {most} at most, or leave it out"
            )
        count = count or most
        shares = [gpus[slot::count] or [gpus[slot % len(gpus)]] for slot in range(count)]
        return [{"CUDA_VISIBLE_DEVICES": ",".join(share)} for share in shares]
    count = count or 1
    if count == 1 or "OMP_NUM_THREADS" in os.environ:
        return [{}] * count
    return [{"OMP_NUM_THREADS": str(max(1, cores_of_process() // count))}] * count


def gpus_of_training(workers: Workers) -> int:
    """Those of this machine that the training of one model needs."""
    if workers.num_workers == 1 or workers.address != LOCAL:
        return 1
    return max(1, math.ceil(workers.num_workers * workers.resources_per_worker.gpu))


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
