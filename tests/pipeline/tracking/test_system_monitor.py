import time
from pathlib import Path

import mlflow
import pytest
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient

from pipeline.tracking.system_monitor import SystemMonitor, visible_gpus
from pipeline.tracking.tracked_run import tracked_run

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


def test_the_machines_other_gpus_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML answers for four GPUs that this machine need not have; the monitor is MLflow's own."""
    import pynvml

    monkeypatch.chdir(tmp_path)  # where MLflow makes a database
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: len(UUIDS))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda i: i)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUUID", lambda handle: UUIDS[handle])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-2222,0")
    assert [m.gpu_handles for m in SystemMetricsMonitor("id").monitors if isinstance(m, GPUMonitor)] == [
        [0, 1, 2, 3]
    ]
    own = SystemMonitor.__new__(SystemMonitor)._initialize_gpu_monitor()
    assert own is not None
    assert (own.gpu_handles, own.num_gpus) == ([3, 0], 2)


def test_a_run_has_them_and_a_continued_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("pipeline.tracking.system_monitor.SECONDS", 0.2)
    steps: list[int] = []
    for _ in range(2):
        with tracked_run("trial", "a", {}, tmp_path / "id") as run:
            time.sleep(1.5)
        history = MlflowClient().get_metric_history(run.run_id, "system/cpu_utilization_percentage")
        assert len(history) > len(steps)
        steps = sorted(point.step for point in history)
    assert steps == list(range(len(steps)))
    assert mlflow.active_run() is None
