from pathlib import Path

import torch

from stochca.compute.devices import device_name


def test_a_processor_has_a_name() -> None:
    name = device_name(torch.device("cpu"))
    assert name
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and "model name" in cpuinfo.read_text():
        assert name in cpuinfo.read_text()
