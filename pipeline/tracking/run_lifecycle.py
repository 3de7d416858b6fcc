"""From its start to its end, an MLflow run is told how the stage that it stands for goes on."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from pipeline.runtime.exclusive import Held
from pipeline.runtime.signals import Terminated, held_signals

PAUSE = 0.2  # seconds between two looks at whether an outbox is free
logger = logging.getLogger(__name__)


class Run(Protocol):
    """A run that has not begun yet."""

    def hold(self) -> None:
        """Keep others from what it is going to write.

        Raises:
            Held: they have not finished; the message names them.
        """

    def start(self) -> None:
        """Begin it, or go on with it, in MLflow.

        Raises:
            UserError: the tracking server can't be used.
        """

    def end(self, status: str) -> None:
        """End it as FINISHED, FAILED or KILLED; never fails for the server's sake."""


@contextmanager
def from_start_to_end(run: Run) -> Iterator[None]:
    """The run ends as FINISHED, as FAILED when the block raises, and as KILLED on SIGTERM or Ctrl-C."""
    with held_signals() as signals:
        with signals.released():  # nothing has begun that would have to be ended
            _hold(run)
        run.start()
        status = "FAILED"
        try:
            with signals.released():
                yield
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
            run.end(status)


def _hold(run: Run) -> None:
    waits = False
    while True:
        try:
            run.hold()
            return
        except Held as held:
            if not waits:
                logger.warning("waiting for %s", held)
            waits = True
            time.sleep(PAUSE)
