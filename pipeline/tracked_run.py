"""One MLflow run per trained model, from its start to its end."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipeline.files import replace_file
from pipeline.outbox import UNSYNCED, Outbox
from pipeline.patience import WHILE_TRAINING, patience
from pipeline.signals import Terminated, held_signals
from pipeline.startup import importing
from pipeline.system_monitor import SystemMonitor
from pipeline.tracking import connect, first_request

logger = logging.getLogger(__name__)


@contextmanager
def tracked_run(experiment: str, name: str, tags: Mapping[str, str], id_file: Path) -> Iterator[Outbox]:
    """An MLflow run, which an interrupted run continues; its id is kept in `id_file`.

    Yields what the run's numbers and files are handed to: it keeps them while the server is lost.
    The run ends as FINISHED, as FAILED when the block raises, and as KILLED on SIGTERM or Ctrl-C.

    Raises:
        UserError: the tracking server can't be used at the start.
    """
    with importing():  # MLflow imports what its store needs when it is first asked
        experiment_id = connect(experiment)
    with held_signals() as signals:
        with first_request():
            run_id = _start_run(experiment_id, name, tags, id_file)
            outbox = Outbox.of_run(run_id, name)
            monitor = SystemMonitor(outbox)
        monitor.start()
        status = RunStatus.FAILED
        try:
            with signals.released():
                yield outbox
            status = RunStatus.FINISHED
        except (KeyboardInterrupt, Terminated):
            status = RunStatus.KILLED
            raise
        except (Exception, SystemExit):
            # It ended a worker too, which was noticed first; or Ray made a plain SystemExit of it.
            if signals.arrived:
                status = RunStatus.KILLED
                signals.raise_if_arrived()
            raise
        finally:
            monitor.finish()
            _end_run(outbox, RunStatus.to_string(status))


def _start_run(experiment_id: str, name: str, tags: Mapping[str, str], id_file: Path) -> str:
    """Continue the run of `id_file`, or start one and write its id there at once."""
    if (run_id := _resumable(id_file)) is not None:
        mlflow.start_run(run_id=run_id, log_system_metrics=False)
        return run_id
    run = mlflow.start_run(
        experiment_id=experiment_id, run_name=name, tags=dict(tags), log_system_metrics=False
    )
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


def _end_run(outbox: Outbox, status: str) -> None:
    outbox.send(now=True)
    try:
        with patience(WHILE_TRAINING):
            mlflow.end_run(status)
    except Exception:  # as in Outbox.send
        outbox.keep_end(status)
    if outbox.folder.exists():
        logger.warning(
            "MLflow lacks a part of run %s, which is kept in %s; send it with: stochca sync",
            outbox.run_id, UNSYNCED / outbox.folder.name,
        )  # fmt: skip
