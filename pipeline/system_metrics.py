"""MLflow's system metrics, of the GPUs that the run can use instead of all that the machine has."""

import os
from collections.abc import Sequence

from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking.fluent import run_id_to_system_metrics_monitor


def log_system_metrics(run_id: str, *, resumed: bool) -> None:
    """Log processor, memory, disk, network and GPUs from now on; MLflow stops it when it ends the run."""
    monitor = OwnSystemMetrics(run_id, resume_logging=resumed)
    run_id_to_system_metrics_monitor[run_id] = monitor  # where mlflow.end_run() looks
    monitor.start()


class OwnSystemMetrics(SystemMetricsMonitor):
    """As MLflow's, without the GPUs of others; `gpu_0` is the first that the run sees, as in torch."""

    def _initialize_gpu_monitor(self) -> GPUMonitor | None:
        monitor = super()._initialize_gpu_monitor()
        if isinstance(monitor, GPUMonitor):
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
