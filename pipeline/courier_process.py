"""The process that a `Courier` starts: `python -m pipeline.courier_process FILE_DESCRIPTOR`.

Requests are (number, name, arguments), without a number where no answer is waited for. It sends answers,
(number, result, error), what of the others failed, and what is logged. It ends when its stage is gone,
however that ended, after MLflow has what the stage had said until then.
"""

import logging
import os
import pickle
import sys
from multiprocessing.connection import Connection
from threading import Lock
from traceback import format_exc
from typing import TYPE_CHECKING, Any

from pipeline.signals import HeldSignals, Terminated, held_signals
from pipeline.startup import importing, leave

if TYPE_CHECKING:
    from pipeline.tracked_run import TrackedRun

SECONDS_TO_NOTICE = 0.2  # that the stage is gone, where processes that it has started still hold its pipe


class Stage:
    """The other end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = Lock()  # a thread logs too
        self._process = os.getppid()

    def next_request(self) -> tuple[int | None, str, tuple[Any, ...]] | None:
        """None when the stage is gone."""
        try:
            while not self._connection.poll(SECONDS_TO_NOTICE):
                if os.getppid() != self._process:
                    return None
            return self._connection.recv()
        except (EOFError, OSError):
            return None

    def send(self, kind: str, content: Any) -> None:
        try:
            with self._sending:
                self._connection.send((kind, content))
        except OSError:  # it is gone; what it said is still delivered
            pass


class Relay(logging.Handler):
    """Sends what is logged to the stage, whose terminal it is."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage

    def emit(self, record: logging.LogRecord) -> None:
        self.stage.send("log", (record.name, record.levelno, record.getMessage()))


def main() -> None:
    stage = Stage(Connection(int(sys.argv[1])))
    logging.getLogger().addHandler(Relay(stage))
    with held_signals() as signals:
        serve(stage, signals)
    leave()  # the stage waits


def serve(stage: Stage, signals: HeldSignals) -> None:
    """Do what the stage asks for until it is gone."""
    with importing():
        # All that is slow to load and will be needed, while the stage loads too.
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

        import pipeline.pictures
        import pipeline.served  # noqa: F401
        from pipeline.tracked_run import TrackedRun

    run: TrackedRun | None = None
    while (request := stage.next_request()) is not None:
        number, name, arguments = request
        result, error = None, None
        try:
            if run is None:
                assert name == "open"
                run = TrackedRun(*arguments)
            else:
                result = _do(run, name, arguments, signals)
        except BaseException as raised:
            error = _portable(raised)
        if number is not None:
            stage.send("answer", (number, result, error))
        elif error is not None and not isinstance(error, Terminated):
            stage.send("failed", error)
    if run is not None:
        run.leave()


def _do(run: "TrackedRun", name: str, arguments: tuple[Any, ...], signals: HeldSignals) -> Any:
    match name:
        case "hold":
            run.hold()
        case "start":
            run.start()
            return run.outbox.run_id
        case "end":
            run.end(*arguments)
        case "artifacts":
            return run.outbox.artifacts
        case "send":
            with signals.released():  # an upload may be interrupted
                return run.outbox.send(now=arguments[0])
        case _:
            getattr(run.outbox, name)(*arguments)
    return None


def _portable(error: BaseException) -> BaseException:
    """The error itself where it can be sent, else one that tells of it."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{error}\n{format_exc()}")


if __name__ == "__main__":
    main()
