"""MLflow's system metrics (processor, memory, GPU), which outlive a lost tracking server."""

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from pipeline.outbox import Outbox

SECONDS = 5.0  # between samples


class SystemMonitor(SystemMetricsMonitor):
    """Hands its samples to the run's outbox.

    MLflow's own thread asks the server before every sample and ends for good when it does not answer.
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
