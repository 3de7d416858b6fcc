"""One MLflow run per trained model, from its start to its end."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import mlflow
from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipeline.exclusive import Held
from pipeline.files import replace_file
from pipeline.outbox import UNSYNCED, Outbox, folder_of, held
from pipeline.patience import WHILE_TRAINING, patience
from pipeline.signals import Terminated, held_signals
from pipeline.startup import importing
from pipeline.system_monitor import SystemMonitor
from pipeline.tracking import connect, first_request

PAUSE = 0.2  # seconds between two looks at whether an outbox is free
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
    interrupted = id_file.read_text().strip() if id_file.exists() else None
    with held_signals() as signals, ExitStack() as holding:
        if interrupted is not None:
            with signals.released():  # nothing has begun that would have to be ended
                _hold(folder_of(interrupted, name), holding)
        with first_request():
            run_id = _start_run(experiment_id, name, tags, interrupted, id_file)
            if run_id != interrupted:
                holding.close()  # what waits of a run that is not there any more is free to be sent
                holding.enter_context(held(folder_of(run_id, name)))
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


def _hold(folder: Path, holding: ExitStack) -> None:
    """Hold the outbox of a run that goes on; where `stochca sync` is sending it, afterwards."""
    waits = False
    while True:
        try:
            holding.enter_context(held(folder))
            return
        except Held:
            if not waits:
                logger.warning("waiting for stochca sync, which is sending %s", folder)
            waits = True
            time.sleep(PAUSE)


def _start_run(
    experiment_id: str, name: str, tags: Mapping[str, str], interrupted: str | None, id_file: Path
) -> str:
    """Continue the interrupted run, or start one and write its id into `id_file` at once."""
    if interrupted is not None and _is_there(interrupted):
        mlflow.start_run(run_id=interrupted, log_system_metrics=False)
        return interrupted
    run = mlflow.start_run(
        experiment_id=experiment_id, run_name=name, tags=dict(tags), log_system_metrics=False
    )
    with replace_file(id_file) as temporary:
        temporary.write_text(run.info.run_id)
    return str(run.info.run_id)


def _is_there(run_id: str) -> bool:
    """Whether the tracking server has the run, and not as a deleted one."""
    try:
        return bool(MlflowClient().get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException:
        return False


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
