"""MLflow: one run per trained model, one parent per method with mean and spread over its seeds."""

import logging
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.entities import Experiment, Metric, RunStatus
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from mlflow.utils.time import get_current_time_millis

from pipeline.files import replace_file
from pipeline.system_metrics import log_system_metrics
from stochca.callbacks import Callback, EvalEvent, StepEvent
from stochca.errors import UserError

if TYPE_CHECKING:
    from pipeline.comparison import Row
    from pipeline.params import Params

DATABASE = Path("mlflow.db")
ARTIFACTS = Path("mlruns")
SYSTEM_METRICS_SECONDS = 5
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # which pages MLflow's UI shows
# For the first request alone, so that a server that is not there is found out in half a minute.
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "8"}
logger = logging.getLogger(__name__)


class Terminated(SystemExit):
    """SIGTERM arrived; unwinds the stack so that the run ends as KILLED."""


class _Sigterm:
    """A handler that raises `Terminated`, once, and never while MLflow opens or closes a run."""

    def __init__(self) -> None:
        self.held = True
        self.arrived = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.arrived = True
        if not self.held:
            self.held = True
            raise Terminated(128 + number)

    @contextmanager
    def released(self) -> Iterator[None]:
        self.held = False
        try:
            self.raise_if_arrived()
            yield
        finally:
            self.held = True

    def raise_if_arrived(self) -> None:
        if self.arrived:
            raise Terminated(128 + signal.SIGTERM)


def connect(experiment: str) -> str:
    """Point MLflow at `MLFLOW_TRACKING_URI`, or at a database here; returns the experiment's id.

    Paths are absolute, so that runs can be found from anywhere.

    Raises:
        UserError: MLflow can't work with the address, nothing answers there, or the experiment was deleted.
    """
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri or f"sqlite:///{DATABASE.resolve()}")
    try:
        with _environment(IMPATIENT):
            found = _experiment(experiment, None if uri else ARTIFACTS.resolve().as_uri())
    except Exception as error:  # MLflow's own, a database's, or that of a driver which is not installed
        raise UserError(_why_unusable(uri, error)) from None
    if found.lifecycle_stage != "active":
        raise UserError(
            f"tracking.experiment {experiment!r} was deleted in MLflow; choose another name, or restore it: "
            f"mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return str(found.experiment_id)


def _experiment(name: str, artifacts: str | None) -> Experiment:
    """The experiment of this name, made if there is none."""
    client = MlflowClient()
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found
    try:
        return client.get_experiment(client.create_experiment(name, artifacts, EXPERIMENT_TAGS))
    except MlflowException:
        if (found := client.get_experiment_by_name(name)) is None:
            raise
        return found  # another process was faster


@contextmanager
def _environment(defaults: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while, where the user has not set them."""
    added = {key: value for key, value in defaults.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            del os.environ[key]


def _why_unusable(uri: str | None, error: Exception) -> str:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
    if not uri:
        return (
            f"{DATABASE} can't be used as MLflow's database: {reason}; move it away, or set "
            "MLFLOW_TRACKING_URI to another"
        )
    if re.search(r"failed with (timeout )?exception", reason):
        reason = "no server answers there"
    elif isinstance(error, UnsupportedModelRegistryStoreURIException):
        reason = "MLflow knows no such kind of address"
    elif "://" not in uri or uri.startswith("file:"):
        reason = "MLflow no longer tracks to a folder"
    sentence = (
        f"MLFLOW_TRACKING_URI {uri} can't be used: {reason}; set it to the address of a running MLflow "
        f"server or to a database such as sqlite:///mlflow.db, or unset it to track to {DATABASE}"
    )
    return re.sub(r"//[^/@\s]*@", "//***@", sentence)  # passwords


@contextmanager
def tracked_run(experiment: str, name: str, tags: Mapping[str, str], id_file: Path) -> Iterator[str]:
    """An MLflow run, which an interrupted run continues; yields its id, kept in `id_file`.

    It ends as FINISHED, as FAILED when the block raises, and as KILLED on SIGTERM or Ctrl-C.
    """
    experiment_id = connect(experiment)
    mlflow.set_system_metrics_sampling_interval(SYSTEM_METRICS_SECONDS)
    sigterm = _Sigterm()
    before = signal.signal(signal.SIGTERM, sigterm)
    try:
        run_id = _start_run(experiment_id, name, tags, id_file)
        status = RunStatus.FAILED
        try:
            with sigterm.released():
                yield run_id
            status = RunStatus.FINISHED
        except (KeyboardInterrupt, Terminated):
            status = RunStatus.KILLED
            raise
        finally:
            mlflow.end_run(RunStatus.to_string(status))
    finally:
        signal.signal(signal.SIGTERM, before)
    sigterm.raise_if_arrived()


def _start_run(experiment_id: str, name: str, tags: Mapping[str, str], id_file: Path) -> str:
    """Continue the run of `id_file`, or start one and write its id there at once."""
    if (run_id := _resumable(id_file)) is not None:
        mlflow.start_run(run_id=run_id, log_system_metrics=False)
        log_system_metrics(run_id, resumed=True)
        return run_id
    run = mlflow.start_run(
        experiment_id=experiment_id, run_name=name, tags=dict(tags), log_system_metrics=False
    )
    log_system_metrics(run.info.run_id, resumed=False)
    with replace_file(id_file) as temporary:
        temporary.write_text(run.info.run_id)
    return str(run.info.run_id)


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
        """Send what is left; a server that has gone must not hide why training ended."""
        try:
            self._send()
        except MlflowException as error:
            logger.warning("the last numbers of run %s did not reach MLflow: %s", self.run_id, error)

    def _add(self, step: int, **values: float) -> None:
        now = get_current_time_millis()
        self.waiting += [Metric(key, value, now, step) for key, value in values.items()]

    def _send(self) -> None:
        for first in range(0, len(self.waiting), 1000):  # the most that a server takes at once
            self.client.log_batch(self.run_id, metrics=self.waiting[first : first + 1000])
        self.waiting = []


def log_new_params(run_id: str, values: Mapping[str, Any]) -> None:
    """Log params to a run; those it has from before an interruption stay, for MLflow refuses changes."""
    logged = MlflowClient().get_run(run_id).data.params
    mlflow.log_params({key: value for key, value in values.items() if key not in logged}, run_id=run_id)


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
