"""The device that a run computes on."""

import platform
import sys
from pathlib import Path

import torch


def default_device() -> torch.device:
    """The accelerator that torch sees, or the CPU."""
    # Without the check, a CUDA build of torch names cuda even where there is no GPU.
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def peak_memory_mb(device: torch.device) -> float:
    """Of the device's allocator on a GPU; of the whole process on a CPU. Of this rank alone."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource  # not there on Windows

    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**20 if sys.platform == "darwin" else 2**10)


def device_name(device: torch.device) -> str:
    """The model of the GPU or the processor; the kind of device where the system doesn't tell."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return (_processor_name() if device.type == "cpu" else "") or device.type


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
