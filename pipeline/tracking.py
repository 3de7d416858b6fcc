"""MLflow: one run per trained model, one parent per method with mean and spread over its seeds."""

import logging
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.entities import Metric, RunStatus
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from mlflow.utils.time import get_current_time_millis

from stochca.callbacks import Callback, EvalEvent, StepEvent

if TYPE_CHECKING:
    from pipeline.comparison import Row
    from pipeline.params import Params

DATABASE = Path("mlflow.db")
ARTIFACTS = Path("mlruns")
SYSTEM_METRICS_SECONDS = 5


class Terminated(SystemExit):
    """SIGTERM arrived; unwinds the stack so that the run ends as KILLED."""


def connect(experiment: str) -> str:
    """Point MLflow at `MLFLOW_TRACKING_URI`, or at a database here; returns the experiment's id.

    Paths are absolute, so that runs can be found from anywhere.
    """
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri or f"sqlite:///{DATABASE.resolve()}")
    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    if found is None:
        try:
            return client.create_experiment(experiment, None if uri else ARTIFACTS.resolve().as_uri())
        except MlflowException:  # another process was faster
            found = client.get_experiment_by_name(experiment)
            if found is None:
                raise
    return str(found.experiment_id)


@contextmanager
def tracked_run(experiment: str, name: str, tags: Mapping[str, str], id_file: Path) -> Iterator[str]:
    """An MLflow run, which an interrupted run continues; yields its id, kept in `id_file`.

    It ends as FINISHED, as FAILED when the block raises, and as KILLED on SIGTERM or Ctrl-C.
    """
    experiment_id = connect(experiment)
    mlflow.set_system_metrics_sampling_interval(SYSTEM_METRICS_SECONDS)
    options: dict[str, Any] = {"log_system_metrics": True}
    run_id = _resumable(id_file)
    if run_id is None:
        run = mlflow.start_run(experiment_id=experiment_id, run_name=name, tags=dict(tags), **options)
    else:
        run = mlflow.start_run(run_id=run_id, **options)
    id_file.parent.mkdir(parents=True, exist_ok=True)
    id_file.write_text(run.info.run_id)
    status = RunStatus.FAILED
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield run.info.run_id
        status = RunStatus.FINISHED
    except (KeyboardInterrupt, Terminated):
        status = RunStatus.KILLED
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
        mlflow.end_run(RunStatus.to_string(status))


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated(128 + number)


def _resumable(id_file: Path) -> str | None:
    """The run that was interrupted, if the tracking server still has it."""
    if not id_file.exists():
        return None
    run_id = id_file.read_text().strip()
    try:
        info = MlflowClient().get_run(run_id).info
    except MlflowException:
        return None
    return run_id if info.lifecycle_stage == "active" else None


class MlflowCallback(Callback):
    """Sends losses, rates and looks at validation, in batches; steps that are there already stay alone."""

    def __init__(self, run_id: str) -> None:
        self.client = MlflowClient()
        self.run_id = run_id
        self.waiting: list[Metric] = []
        self.logged = {
            key: max((point.step for point in self.client.get_metric_history(run_id, key)), default=0)
            for key in ("train_loss", "validation_loss")
        }

    def on_step(self, event: StepEvent) -> None:
        if event.step > self.logged["train_loss"]:
            self._add(
                event.step, train_loss=event.loss, lr=event.lr, images_per_second=event.images_per_second
            )

    def on_eval(self, event: EvalEvent) -> None:
        if event.step > self.logged["validation_loss"]:
            self._add(event.step, validation_loss=event.loss, validation_accuracy=event.accuracy)
        self._send()

    def on_checkpoint(self, path: Path, step: int) -> None:
        self._send()

    def on_end(self) -> None:
        self._send()

    def _add(self, step: int, **values: float) -> None:
        now = get_current_time_millis()
        self.waiting += [Metric(key, value, now, step) for key, value in values.items()]

    def _send(self) -> None:
        for first in range(0, len(self.waiting), 1000):  # the most that a server takes at once
            self.client.log_batch(self.run_id, metrics=self.waiting[first : first + 1000])
        self.waiting = []


def log_groups(params: "Params", rows: Sequence["Row"], report_files: Sequence[Path]) -> None:
    """One parent run per method and target, over the runs of its seeds, and one run that holds the page.

    They are found again by their tag, so that comparing anew updates them. Runs that the tracking
    server no longer has are passed over.
    """
    experiment_id = connect(params.tracking.experiment)
    client = MlflowClient()
    for row in rows:
        tags = {"seeds": ",".join(str(run.seed) for run in row.runs), "verdict": row.verdict}
        parent = _group_run(client, experiment_id, f"{row.method}-{row.target}", tags)
        for name in ("method", "target"):
            client.log_param(parent, name, getattr(row, name))
        for name, spread in row.metrics.items():
            client.log_metric(parent, name, spread.mean)
            if spread.std is not None:
                client.log_metric(parent, f"{name}_std", spread.std)
        client.log_metric(parent, f"difference_to_{row.reference}", row.difference.mean)
        client.set_terminated(parent)
        for run_id in row.mlflow_run_ids:
            with suppress(MlflowException):
                client.set_tag(run_id, MLFLOW_PARENT_RUN_ID, parent)
    page = _group_run(client, experiment_id, "comparison", {"reference": params.compare.reference})
    for path in report_files:
        client.log_artifact(page, str(path))
    client.set_terminated(page)


def _group_run(client: MlflowClient, experiment_id: str, group: str, tags: Mapping[str, str]) -> str:
    found = client.search_runs([experiment_id], f"tags.group = '{group}'", max_results=1)
    run = found[0] if found else client.create_run(experiment_id, run_name=group, tags={"group": group})
    for key, value in tags.items():
        client.set_tag(run.info.run_id, key, value)
    return str(run.info.run_id)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``training.lr: 0.0001``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def git_commit() -> str | None:
    """The commit that is checked out, with a + when files differ from it."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip() or None
