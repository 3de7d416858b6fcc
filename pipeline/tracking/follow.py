"""A process that publishes the folder of a run while it goes on: `python -m pipeline.tracking.follow PID`.

It loads MLflow while the run loads PyTorch, and no step of a training waits for a server. It is told the
folder on its standard input, reads there what there is to publish, and ends when the run has ended or its
process, PID, is gone. What went wrong at the start it leaves in the folder, in the file `problem`.
"""

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.runtime.exclusive import Held
from pipeline.runtime.files import write_json, write_text
from pipeline.runtime.paths import CODE, RUNS
from pipeline.runtime.signals import Terminated, UnwindingSignals, unwinding_signals
from pipeline.runtime.startup import importing, leave
from pipeline.tracking.labels import without_password
from pipeline.tracking.run_folder import (
    ENDS,
    MLFLOW,
    PROBLEM,
    PUBLISHED,
    RUN,
    RunFolder,
    discard_finished,
    held,
)
from stochca.errors import UserError

if TYPE_CHECKING:
    from pipeline.tracking.publish import Publisher

PAUSE = 0.1  # seconds between two looks at whether the run has ended
BETWEEN = 2.0  # seconds between two publications while it goes on
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 300.0  # seconds without a try after the server was lost; doubles
SECONDS_TO_LEAVE = 1.0  # for a process that has published nothing yet
LACKS = "MLflow lacks a part of run %s, which is kept in %s; send it with: stochca sync"
logger = logging.getLogger(__name__)


class Follower:
    """The process, as the run sees it. A context: it starts when it is entered, and is gone behind it."""

    def __enter__(self) -> "Follower":
        paths = [str(CODE), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.tracking.follow", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C is for the run, which still has something to say
        )
        self._follows = False
        return self

    def __exit__(self, *error: object) -> None:
        if not self._follows:
            self.process.kill()
        self.process.wait()

    @contextmanager
    def follows(
        self,
        folder: Path,
        experiment: str,
        name: str,
        tags: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Iterator[RunFolder]:
        """Begin the MLflow run of `folder`, or go on with it; see `RunFolder.begin` for the rest.

        It ends as FINISHED, as FAILED when the block raises, and as KILLED on SIGTERM or Ctrl-C. Behind the
        block these end the uploads alone: its results are in place, and `stochca sync` sends the rest. What a
        finished run would go on from stays until another has finished that began later.

        Raises:
            UserError: the tracking server can't be used.
        """
        began, before = 1000 * time.time(), RunFolder(folder)
        had_finished = before.has_finished and bool(before.goes_on_from)
        with unwinding_signals() as signals:
            run = RunFolder.begin(folder, experiment, name, tags, **options)
            try:
                with signals.raised():
                    self._start(run)
            except BaseException:
                self._give_up(run)
                raise
            if had_finished:
                print(f"{name}: had finished before, and goes on from its last checkpoint", flush=True)
            status = "FAILED"
            try:
                with signals.raised():
                    yield run
                status = "FINISHED"
            except (KeyboardInterrupt, Terminated):
                status = "KILLED"
                raise
            except (Exception, SystemExit):
                # It ended a worker too, which was noticed first; or Ray made a plain SystemExit of it.
                if signals.arrived:
                    status = "KILLED"
                    signals.raise_if_arrived()
                raise
            finally:
                self._follows = False  # for ever, if it can't be told the end because the disk is full
                run.end(status)
                self._follows = True
                self._finish(signals)
                if status == "FINISHED":  # DVC has recorded those by now: it started this one after them
                    discard_finished(before=began)
                run_id = run.read(MLFLOW).get("run_id")
                run.keep()
            if self.process.returncode:  # it was killed, and could not say so
                logger.warning(LACKS, run_id, RUNS / run.folder.name)
            signals.arrived = None  # raised, it would have DVC run again what is there

    def _start(self, run: RunFolder) -> None:
        """Wait until the run is there in MLflow."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(f"{run.folder}\n")
            self.process.stdin.close()
        while run.read(MLFLOW).get("follower") != self.process.pid:
            if (run.folder / PROBLEM).exists():
                raise UserError((run.folder / PROBLEM).read_text(encoding="utf-8"))
            if self.process.poll() is not None:
                raise UserError(
                    "the process that talks to MLflow for this run was ended, by hand or for lack of memory; "
                    "run the same command again"
                )
            time.sleep(PAUSE / 2)
        self._follows = True

    def _give_up(self, run: RunFolder) -> None:
        """Nothing has been done; if MLflow has the run already, it ends there as well."""
        run.end("KILLED")
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(SECONDS_TO_LEAVE)
        (run.folder / PROBLEM).unlink(missing_ok=True)
        if {path.name for path in run.folder.iterdir()} == {RUN}:
            shutil.rmtree(run.folder)

    def _finish(self, signals: UnwindingSignals) -> None:
        """Wait until MLflow has what the run said; a signal, an earlier one too, cuts uploads short."""
        is_told = False
        while self.process.poll() is None:
            if signals.arrived and not is_told:
                self.process.terminate()
                is_told = True
            time.sleep(PAUSE / 2)


def follow(folder: Path, process: int, signals: UnwindingSignals) -> None:
    """Publish the folder of a run until the run has ended, or its process is gone.

    SIGTERM asks to hurry: an upload that is under way ends, and none begins; what goes fast is still sent.
    """
    waits = False
    while not signals.arrived and os.getppid() == process:
        try:
            with held(folder):
                _follow(folder, process, signals)
            return
        except Held:
            if not waits:
                logger.warning("waiting for another process that publishes %s", RUNS / folder.name)
            waits = True
            time.sleep(PAUSE)


def _follow(folder: Path, process: int, signals: UnwindingSignals) -> None:
    from pipeline.tracking.logged_model import prepare_to_log
    from pipeline.tracking.publish import Publisher
    from pipeline.tracking.system_monitor import SystemMonitor

    publisher = Publisher(folder)
    try:
        with suppress(Terminated), signals.raised():
            publisher.connect()
        if signals.arrived:
            return
        publisher.start()
    except UserError as error:
        write_text(folder / PROBLEM, str(error))
        return
    write_json(folder / MLFLOW, {"run_id": publisher.run_id, "follower": os.getpid()})
    attempts = Attempts(publisher)
    with SystemMonitor(folder):
        if publisher.run.read(RUN).get("uploads_model"):
            prepare_to_log()
        while publisher.status not in ENDS and os.getppid() == process:
            attempts.send_in_time()
            time.sleep(PAUSE)
    if os.getppid() != process:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # who reads what the run wrote waits no longer
    attempts.send_the_rest(signals)


class Attempts:
    """Sends what there is now and then; a server that was lost is tried again after a pause that grows."""

    def __init__(self, publisher: "Publisher") -> None:
        self.publisher = publisher
        self.folder = RUNS / publisher.folder.name
        self._pause, self._next = 0.0, 0.0

    def send_in_time(self) -> None:
        """Losing the server and having it back is one line of warning each."""
        from mlflow import get_tracking_uri

        from pipeline.tracking.server import reason_of

        if time.monotonic() < self._next:
            return
        server = f"MLflow at {without_password(get_tracking_uri())}"
        try:
            self.publisher.send_numbers()
        except Exception as error:  # MLflow's own, a database's, that of a store of files: training goes on
            if not self._pause:
                logger.warning(
                    "%s does not take what run %s logs (%s); training goes on, its log waits in %s",
                    server, self.publisher.run_id, reason_of(error), self.folder,
                )  # fmt: skip
            self._pause = min(2 * self._pause or FIRST_PAUSE, LONGEST_PAUSE)
        else:
            if self._pause:
                logger.warning("%s is back; what was waiting has been sent", server)
            self._pause = 0.0
        self._next = time.monotonic() + (self._pause or BETWEEN)

    def send_the_rest(self, signals: UnwindingSignals) -> None:
        """All that the run has left, and how it ended."""
        try:
            self.publisher.send_numbers()
            if self.publisher.status not in ENDS:  # its process was killed, and it may go on
                return
            with suppress(Terminated), signals.raised():
                self.publisher.send_files()
            self.publisher.end()
            self.publisher.tidy()
        except Exception:  # as above
            logger.debug("MLflow was lost", exc_info=True)
        folder = self.publisher.folder
        if folder.exists() and not (folder / PUBLISHED).exists():
            logger.warning(LACKS, self.publisher.run_id, self.folder)


def main() -> None:
    signals = UnwindingSignals()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signals)
    with importing():  # all that is slow to load and will be needed, while the run loads too
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    if folder := sys.stdin.readline().strip():
        follow(Path(folder), int(sys.argv[1]), signals)
    leave()


if __name__ == "__main__":
    main()
