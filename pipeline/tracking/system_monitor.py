"""What the machine does while a run goes on (processor, memory, disk, network, the run's own GPUs)."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from pipeline.tracking.run_folder import SYSTEM, append_line, finish_line

SECONDS = 5.0  # between samples
PREFIX = "system/"  # under which MLflow shows them


class SystemMonitor:
    """Writes samples into a run's folder, from which they are published. A context.

    They are MLflow's, whose own thread would ask the server before every sample and end for good when it
    does not answer. `gpu_0` is the first GPU that the run sees, as in torch.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / SYSTEM
        finish_line(self.path)
        self.step = len(self.path.read_text().splitlines()) if self.path.exists() else 0
        self.monitors: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        with suppress(ImportError, RuntimeError):  # there is no GPU
            self.monitors.append(own_gpus(GPUMonitor()))
        self._ends = Event()
        self._thread = Thread(target=self._sample, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._ends.set()
        self._thread.join()

    def _sample(self) -> None:
        for monitor in self.monitors:
            monitor.collect_metrics()  # the first one is the start of what is measured
        while not self._ends.wait(SECONDS):
            values: dict[str, float] = {}
            for monitor in self.monitors:
                monitor.collect_metrics()
                values |= {PREFIX + name: value for name, value in monitor.aggregate_metrics().items()}
                monitor.clear_metrics()
            append_line(self.path, values, self.step)
            self.step += 1


def own_gpus(monitor: GPUMonitor) -> GPUMonitor:
    """The monitor, of those GPUs alone that the run sees."""
    import pynvml

    uuids = [str(pynvml.nvmlDeviceGetUUID(handle)) for handle in monitor.gpu_handles]
    own = visible_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"), uuids)
    monitor.gpu_handles = [monitor.gpu_handles[i] for i in own]
    monitor.num_gpus = len(own)
    return monitor


def visible_gpus(setting: str | None, uuids: Sequence[str]) -> list[int]:
    """The places in `uuids`, the machine's GPUs in order, that CUDA_VISIBLE_DEVICES leaves to a process.

    As CUDA reads it: places or UUIDs, which may be cut short where they stay unique, up to the first that
    means nothing; None stands for all. A slice of a GPU (MIG-...) has no metrics that NVML could tell.
    Places are in the order of NVML, which is CUDA's on machines whose GPUs are all alike; elsewhere
    CUDA_DEVICE_ORDER=PCI_BUS_ID makes them so.
    """
    if setting is None:
        return list(range(len(uuids)))
    own: list[int] = []
    for name in setting.split(","):
        name = name.strip()
        if name.isdecimal():
            places = [int(name)] if int(name) < len(uuids) else []
        else:
            places = [i for i, uuid in enumerate(uuids) if name.startswith("GPU-") and uuid.startswith(name)]
        if len(places) != 1:
            break
        if places[0] in own:  # CUDA then sees none at all
            return []
        own += places
    return own
