"""Has a process of its own talk to MLflow for a stage: `pipeline.tracking.courier_process`.

It loads MLflow while the stage loads PyTorch, and no step of the training waits for a server.
"""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.runtime.signals import postponed_signals
from pipeline.tracking.run_lifecycle import from_start_to_end
from stochca.errors import UserError

if TYPE_CHECKING:
    import numpy as np

ROOT = Path(__file__).parents[2]
SECONDS_TO_LEAVE = 1.0  # for a courier whose run has not begun
logger = logging.getLogger(__name__)


class Courier:
    """The stage's side. A context: the process starts when it is entered, and is gone behind it."""

    run_id: str

    def __enter__(self) -> "Courier":
        self._connection, theirs = Pipe()
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.tracking.courier_process", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C is for the stage, which still has something to say
        )
        theirs.close()
        self._asked = 0
        self._has_begun = False
        return self

    def __exit__(self, *error: object) -> None:
        # To close it would not do: processes that the stage has started may have it too.
        with suppress(OSError), postponed_signals():
            self._connection.send(None)
        self._connection.close()
        if not self._has_begun:
            try:
                self._process.wait(SECONDS_TO_LEAVE if self._asked else 0)
            except subprocess.TimeoutExpired:  # it is loading, or waits for a server
                self._process.kill()
        self._process.wait()

    @contextmanager
    def tracked_run(
        self, experiment: str, name: str, tags: Mapping[str, str], id_file: Path
    ) -> Iterator["Courier"]:
        """As `pipeline.tracking.tracked_run.tracked_run`, and what it yields can be told the same.

        Raises:
            UserError: the tracking server can't be used at the start; or the process was killed.
        """
        self._ask("open", experiment, name, dict(tags), id_file)
        with from_start_to_end(self):
            yield self

    def hold(self) -> None:
        self._ask("hold")

    def start(self) -> None:
        self._has_begun = True
        self.run_id = self._ask("start")

    def end(self, status: str) -> None:
        try:
            self._ask("end", status)
        except Exception as error:
            if status == "FINISHED":
                raise
            logger.warning("%s", error)  # what has ended the run is told in its place

    @property
    def artifacts(self) -> Path:
        return Path(self._ask("artifacts"))

    def add_params(self, values: Mapping[str, Any]) -> None:
        self._ask("add_params", {key: str(value) for key, value in values.items()})

    def add_tags(self, values: Mapping[str, str]) -> None:
        self._ask("add_tags", dict(values))

    def add_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self._tell("add_metrics", dict(values), step, time.time_ns() // 1_000_000)

    def add_model(self, model: Path, example: "np.ndarray", backbone: Path | None = None) -> None:
        self._ask("add_model", model, example, backbone)

    def add_pictures(
        self,
        events: Sequence[Mapping[str, Any]],
        labels: "np.ndarray",
        predictions: "np.ndarray",
        classes: Sequence[str],
    ) -> None:
        self._ask("add_pictures", list(events), labels, predictions, list(classes))

    def send(self, *, now: bool = False) -> bool:
        """As `Outbox.send`, with an answer where it is to be `now`; else it happens while the stage goes on.

        What has been told is on its way then, and the end of the run waits for it.
        """
        if now:
            return bool(self._ask("send", True))
        self._tell("send", False)
        return False

    def _tell(self, name: str, *arguments: Any) -> None:
        """Without an answer; order is kept."""
        while self._connection.poll():
            self._answer_of(self._receive())
        self._request(None, name, arguments)

    def _ask(self, name: str, *arguments: Any) -> Any:
        """The answer, or the error raised."""
        self._asked += 1
        self._request(self._asked, name, arguments)
        while (answer := self._answer_of(self._receive())) is None:
            pass
        result, error = answer
        if error is not None:
            raise error
        return result

    def _request(self, number: int | None, name: str, arguments: tuple[Any, ...]) -> None:
        try:
            with postponed_signals():  # half a message could not be followed by another
                self._connection.send((number, name, arguments))
        except OSError:
            raise self._lost() from None

    def _receive(self) -> tuple[str, Any]:
        try:
            self._connection.poll(None)
            with postponed_signals():
                return self._connection.recv()
        except (EOFError, OSError):
            raise self._lost() from None

    def _answer_of(self, message: tuple[str, Any]) -> tuple[Any, BaseException | None] | None:
        """What the latest question is answered, if it is; logs are passed on, late answers dropped.

        What failed of something told is raised.
        """
        kind, content = message
        if kind == "log":
            name, level, text = content
            logging.getLogger(name).log(level, "%s", text)
            return None
        if kind == "failed":
            raise content
        number, result, error = content
        return (result, error) if number == self._asked else None

    def _lost(self) -> UserError:
        return UserError(
            "the process that talks to MLflow for this run was ended, by hand or for lack of memory; "
            "run the same command again: it continues from the last checkpoint"
        )
