"""The device that a run computes on."""

import sys

import torch


def default_device() -> torch.device:
    """The accelerator that torch sees, or the CPU."""
    # Without the check, a CUDA build of torch names cuda even where there is no GPU.
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def peak_memory_mb(device: torch.device) -> float:
    """Of the device's allocator on a GPU; of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource  # not there on Windows

    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**20 if sys.platform == "darwin" else 2**10)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
