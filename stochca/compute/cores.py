"""How many processor cores a process may use; needs no torch."""

import os


def cores_of_process() -> int:
    """Processor cores that this process may use, after an equal share for the other ranks on its machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))  # set by torchrun and Ray Train
