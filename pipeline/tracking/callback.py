"""What a training loop tells MLflow while it runs."""

from pathlib import Path

from pipeline.tracking.run_log import RunLog
from stochca.training.callbacks import Callback, EvalEvent, StepEvent


class MlflowCallback(Callback):
    """Sends losses, rates and evaluations, in batches; steps that are there already stay alone."""

    def __init__(self, outbox: RunLog) -> None:
        self.outbox = outbox

    def on_step(self, event: StepEvent) -> None:
        values = {"train_loss": event.loss, "lr": event.lr, "images_per_second": event.images_per_second}
        self.outbox.add_metrics(values, event.step)

    def on_eval(self, event: EvalEvent) -> None:
        values = {"validation_loss": event.loss, "validation_accuracy": event.accuracy}
        self.outbox.add_metrics(values, event.step)
        self.outbox.send()

    def on_checkpoint(self, path: Path, step: int) -> None:
        self.outbox.send()

    def on_end(self) -> None:
        self.outbox.send()
