import pytest
import torch

from pipeline.commands.advice.machine import Machine, this_machine
from stochca.compute.cores import cores_of_process


def test_machines_in_words() -> None:
    assert str(Machine(1, "fp32")) == "1 core, no GPU, fp32"
    assert str(Machine(16, "bf16", "H200", 139.4)) == "16 cores, H200 with 139 GiB, bf16"
    assert str(Machine(8, "fp32", "mps")) == "8 cores, mps, fp32"


def test_more_processes_than_cores_are_busy() -> None:
    assert not Machine(2, "bf16", load=2.5).busy
    assert Machine(2, "bf16", load=8.0).busy


@pytest.mark.skipif(torch.accelerator.is_available(), reason="what a machine without a GPU says")
def test_this_machine() -> None:
    found = this_machine()
    assert (found.cores, found.gpu, found.memory) == (cores_of_process(), None, None)
    assert found.precision in ("fp32", "bf16")
