"""One MLflow run per trained model or search, from its start to its end."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipeline.runtime.exclusive import Held, exclusive
from pipeline.runtime.files import replace_file
from pipeline.runtime.startup import importing
from pipeline.tracking.outbox import UNSYNCED, Outbox, folder_of, held
from pipeline.tracking.patience import WHILE_TRAINING, patience
from pipeline.tracking.run_lifecycle import from_start_to_end
from pipeline.tracking.server import connect, first_request
from pipeline.tracking.system_monitor import SystemMonitor

logger = logging.getLogger(__name__)


@contextmanager
def tracked_run(experiment: str, name: str, tags: Mapping[str, str], id_file: Path) -> Iterator[Outbox]:
    """An MLflow run, which an interrupted run continues; its id is kept in `id_file`.

    Yields what the run's numbers and files are handed to: it keeps them while the server is lost.
    The run ends as `from_start_to_end` says.

    Raises:
        UserError: the tracking server can't be used at the start.
    """
    run = TrackedRun(experiment, name, tags, id_file)
    with from_start_to_end(run):
        yield run.outbox


class TrackedRun:
    """An MLflow run that this process tells what it is told.

    Raises:
        UserError: the tracking server can't be used.
    """

    outbox: Outbox  # from the start on

    def __init__(self, experiment: str, name: str, tags: Mapping[str, str], id_file: Path) -> None:
        with importing():  # MLflow imports what its store needs when it is first asked
            self.experiment_id = connect(experiment)
        self.name, self.tags, self.id_file = name, tags, id_file
        self._held = ExitStack()  # that nobody else tells MLflow about it
        self._held_outbox = ExitStack()
        self._monitor: SystemMonitor | None = None  # while the run is going on

    def hold(self) -> None:
        """Keep others from the run's id and outbox.

        Raises:
            Held: a process that was left behind, or `stochca sync`, has not finished with them.
        """
        with ExitStack() as holding:
            earlier = "what an earlier start of this run has left behind, until MLflow has it"
            holding.enter_context(exclusive(f"mlflow-{self.id_file.parent.name}", earlier))
            self.interrupted = self.id_file.read_text().strip() if self.id_file.exists() else None
            if self.interrupted is not None:
                self._hold_outbox(folder_of(self.interrupted, self.name))
            self._held = holding.pop_all()

    def start(self) -> None:
        """Continue the interrupted run, or start one.

        Raises:
            UserError: the tracking server can't be used.
        """
        try:
            with first_request():
                run_id = _start_run(self.experiment_id, self.name, self.tags, self.interrupted, self.id_file)
                if run_id != self.interrupted:
                    self._held_outbox.close()  # what waits of a run that is not there any more may be sent
                    self._hold_outbox(folder_of(run_id, self.name))
                self.outbox = Outbox.of_run(run_id, self.name)
                monitor = SystemMonitor(self.outbox)
        except BaseException:
            self._release()
            raise
        monitor.start()
        self._monitor = monitor

    def end(self, status: str) -> None:
        """End the run as `status`; where MLflow can't be told, its outbox keeps that."""
        self._finish_monitor()
        try:
            _end_run(self.outbox, status)
        finally:
            self._release()

    def leave(self) -> None:
        """Leave a run as it is that its stage did not live to end: it may go on, and send its files then."""
        if self._monitor is not None:
            self._finish_monitor()
            self.outbox.send(now=True, files=False)
        self._release()

    def _finish_monitor(self) -> None:
        if self._monitor is not None:
            self._monitor.finish()
        self._monitor = None

    def _release(self) -> None:
        self._held_outbox.close()
        self._held.close()

    def _hold_outbox(self, folder: Path) -> None:
        try:
            self._held_outbox.enter_context(held(folder))
        except Held:
            raise Held(f"stochca sync, which is sending {folder}") from None


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
    outbox.send(now=True, files=status != "KILLED")  # who ends a run does not wait for uploads
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
