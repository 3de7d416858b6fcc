"""What of this machine decides settings."""

import os
from dataclasses import dataclass

import torch

from stochca.compute.cores import cores_of_process
from stochca.compute.devices import default_device, device_name
from stochca.compute.precision import resolve_precision


@dataclass(frozen=True)
class Machine:
    cores: int
    precision: str  # what `auto` is here: bf16 | fp32
    gpu: str | None = None  # its name
    memory: float | None = None  # of the GPU, GiB; None: there is none, or it does not tell
    load: float = 0.0  # processes that want to compute, the mean over a minute

    @property
    def busy(self) -> bool:
        """Whether other work makes it slower than it is."""
        return self.load > 1.5 * self.cores

    def __str__(self) -> str:
        cores = f"{self.cores} core{'s' if self.cores > 1 else ''}"
        if self.gpu is None:
            return f"{cores}, no GPU, {self.precision}"
        memory = "" if self.memory is None else f" with {self.memory:.0f} GiB"
        return f"{cores}, {self.gpu}{memory}, {self.precision}"


def this_machine() -> Machine:
    device = default_device()
    precision = resolve_precision("auto", device)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if device.type == "cpu":
        return Machine(cores_of_process(), precision, load=load)
    memory = torch.cuda.get_device_properties(device).total_memory / 2**30 if device.type == "cuda" else None
    return Machine(cores_of_process(), precision, device_name(device), memory, load)
