"""How many stages run side by side, and what each of them may use."""

import os
import queue
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from stochca.compute.cores import cores_of_process
from stochca.errors import UserError


class Slots:
    """A place for each stage that runs; a slot is the environment variables that its commands get.

    With GPUs there is a slot for each of them, or as many as asked for, among which the GPUs are shared out.
    Without, there is one that may use every core, or several that share the cores.
    """

    def __init__(self, count: int | None = None) -> None:
        if count is not None and count < 1:
            raise UserError(f"slots must be 1 or more, found {count}; leave it out for one per GPU")
        self.environments = _environments(visible_gpus(), count)
        self._free: queue.Queue[Mapping[str, str]] = queue.Queue()
        for environment in self.environments:
            self._free.put(environment)

    def __len__(self) -> int:
        return len(self.environments)

    @contextmanager
    def take(self) -> Iterator[Mapping[str, str]]:
        """Wait for a free slot and hold it."""
        environment = self._free.get()
        try:
            yield environment
        finally:
            self._free.put(environment)


def _environments(gpus: list[str], count: int | None) -> list[Mapping[str, str]]:
    if gpus:
        count = count or len(gpus)
        shares = [gpus[slot::count] or [gpus[slot % len(gpus)]] for slot in range(count)]
        return [{"CUDA_VISIBLE_DEVICES": ",".join(share)} for share in shares]
    if (count or 1) == 1 or "OMP_NUM_THREADS" in os.environ:
        return [{}] * (count or 1)
    assert count is not None
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
