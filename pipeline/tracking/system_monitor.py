"""MLflow's system metrics (processor, memory, the run's own GPUs), which outlive a lost tracking server."""

import os
from collections.abc import Sequence

from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from pipeline.tracking.outbox import Outbox

SECONDS = 5.0  # between samples


class SystemMonitor(SystemMetricsMonitor):
    """Hands its samples to the run's outbox, and leaves the GPUs of others out.

    MLflow's own thread asks the server before every sample and ends for good when it does not answer.
    `gpu_0` is the first GPU that the run sees, as in torch.
    """

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(outbox.run_id, sampling_interval=SECONDS, resume_logging=True)
        self.outbox = outbox

    def monitor(self) -> None:
        self.collect_metrics()  # the first one is the start of what is measured
        while not self._shutdown_event.wait(self.sampling_interval):
            self.collect_metrics()
            self.publish_metrics(self.aggregate_metrics())

    def publish_metrics(self, metrics: dict[str, float]) -> None:
        named = {f"{self._metrics_prefix}{name}": value for name, value in metrics.items()}
        self.outbox.add_metrics(named, self._logging_step)
        self._logging_step += 1
        for monitor in self.monitors:
            monitor.clear_metrics()

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
