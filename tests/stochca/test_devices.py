from pathlib import Path

import pytest
import torch

from stochca.devices import cores_of_process, device_name


def test_a_processor_has_a_name() -> None:
    name = device_name(torch.device("cpu"))
    assert name
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and "model name" in cpuinfo.read_text():
        assert name in cpuinfo.read_text()


def test_ranks_on_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = cores_of_process()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert cores_of_process() == max(1, alone // 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(100 * alone))
    assert cores_of_process() == 1
