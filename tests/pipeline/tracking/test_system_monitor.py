import json
import time
from pathlib import Path

import pytest
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

from pipeline.tracking.system_monitor import SystemMonitor, own_gpus, visible_gpus

UUIDS = ["GPU-8f2e1c00-aaaa", "GPU-8f2e9d00-bbbb", "GPU-11111111-cccc", "GPU-22222222-dddd"]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("2", [2]),
        ("3,1", [3, 1]),
        (" 1 , 0", [1, 0]),
        ("-1", []),
        ("1,-1,2", [1]),
        ("0,9,1", [0]),
        ("1,1", []),
        ("GPU-11111111-cccc", [2]),
        ("GPU-2222,GPU-8f2e9", [3, 1]),
        ("GPU-8f2e", []),  # two of them
        ("GPU-ffff", []),
        ("MIG-0b1c2d3e", []),
        ("NoDevFiles", []),
    ],
)
def test_gpus_are_those_that_cuda_sees(setting: str | None, expected: list[int]) -> None:
    assert visible_gpus(setting, UUIDS) == expected


def test_the_machines_other_gpus_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML answers for four GPUs that this machine need not have; the monitor is MLflow's own."""
    import pynvml

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: len(UUIDS))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda i: i)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUUID", lambda handle: UUIDS[handle])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-2222,0")
    assert GPUMonitor().gpu_handles == [0, 1, 2, 3]
    own = own_gpus(GPUMonitor())
    assert (own.gpu_handles, own.num_gpus) == ([3, 0], 2)


def test_samples_are_written_and_counted_on_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.tracking.system_monitor.SECONDS", 0.1)
    for _ in range(2):
        with SystemMonitor(tmp_path):
            time.sleep(0.5)
        with (tmp_path / "system.jsonl").open("a") as file:
            file.write('{"cut o')
    lines = (tmp_path / "system.jsonl").read_text().splitlines()
    samples = [json.loads(line) for line in lines if line.endswith("}")]
    assert len(samples) > 4
    steps = [sample["step"] for sample in samples]
    assert steps == sorted(set(steps))
    assert 0 <= samples[-1]["values"]["system/cpu_utilization_percentage"] <= 100
