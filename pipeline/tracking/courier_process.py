"""The process that a `Courier` starts: `python -m pipeline.tracking.courier_process FILE_DESCRIPTOR`.

Requests are (number, name, arguments), without a number where no answer is waited for, and None at the end.
It sends answers, (number, result, error), what of the others failed, and what is logged. It ends when its
stage does, or is gone, after MLflow has the numbers that it was told until then.
"""

import logging
import os
import pickle
import signal
import sys
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Lock, Thread, get_ident
from traceback import format_exc
from types import FrameType
from typing import TYPE_CHECKING, Any

from pipeline.runtime.signals import HeldSignals, Terminated
from pipeline.runtime.startup import importing

if TYPE_CHECKING:
    from pipeline.tracking.tracked_run import TrackedRun

SECONDS_TO_NOTICE = 0.2  # that the stage is gone, where processes that it has started still hold its pipe
Request = tuple[int | None, str, tuple[Any, ...]] | None


class Stage:
    """The other end. What it says is taken at once, so that it never waits, and done in turn."""

    def __init__(self, connection: Connection) -> None:
        self.is_ending = False  # it, or somebody who has ended it, would wait for what takes long
        self._connection = connection
        self._sending = Lock()  # a thread logs too
        self._process = os.getppid()
        self._requests: SimpleQueue[Request] = SimpleQueue()
        self._sends_heard = self._sends_begun = 0
        self._main_thread = get_ident()
        Thread(target=self._listen, daemon=True).start()

    def next_request(self) -> Request:
        """Waited for; None when the stage ends or is gone."""
        request = self._requests.get()
        self._sends_begun += _is_send(request)
        return request

    @property
    def will_send_again(self) -> bool:
        """Whether it has said so already."""
        return self._sends_heard > self._sends_begun

    def send(self, kind: str, content: Any) -> None:
        try:
            with self._sending:
                self._connection.send((kind, content))
        except OSError:  # it is gone; what it said is still delivered
            pass

    def _listen(self) -> None:
        request: Request = (None, "", ())
        while request is not None:
            request = self._received()
            self._sends_heard += _is_send(request)
            self._requests.put(request)
            if request is None or request[1:] == ("end", ("KILLED",)):
                self.is_ending = True
                signal.pthread_kill(self._main_thread, signal.SIGTERM)

    def _received(self) -> Request:
        try:
            while not self._connection.poll(SECONDS_TO_NOTICE):
                if os.getppid() != self._process:
                    raise EOFError
            request: Request = self._connection.recv()
            return request
        except (EOFError, OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # who reads what the stage wrote waits no longer
            return None


class Interruption(HeldSignals):
    """Ends an upload when the stage is ending. Other signals that reach the stage are its own affair."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.stage.is_ending:
            super().__call__(signal.SIGTERM, frame)


class Relay(logging.Handler):
    """Sends what is logged to the stage, whose terminal it is."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage

    def emit(self, record: logging.LogRecord) -> None:
        self.stage.send("log", (record.name, record.levelno, record.getMessage()))


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    stage = Stage(Connection(int(sys.argv[1])))
    interruption = Interruption(stage)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interruption)
    logging.getLogger().addHandler(Relay(stage))
    serve(stage, interruption)
    sys.stderr.flush()
    os._exit(0)  # the stage waits; and at Python's own end MLflow would call a run finished that may go on


def serve(stage: Stage, interruption: Interruption) -> None:
    """Do what the stage asks for until its end."""
    with importing():
        # All that is slow to load and will be needed, while the stage loads too.
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

        from pipeline.tracking.tracked_run import TrackedRun

    run: TrackedRun | None = None
    while (request := stage.next_request()) is not None:
        number, name, arguments = request
        result, error = None, None
        try:
            if run is None:
                assert name == "open"
                run = TrackedRun(*arguments)
            elif name == "send" and number is None and stage.will_send_again:
                pass  # a server that was slow gets all at once
            elif name == "send":
                with interruption.released():
                    result = run.outbox.send(now=arguments[0], files=not stage.is_ending)
            else:
                result = _do(run, name, arguments)
        except Terminated:  # an upload; the stage waits for the end alone
            pass
        except Exception as raised:
            error = _portable(raised)
        if number is not None:
            stage.send("answer", (number, result, error))
        elif error is not None:
            stage.send("failed", error)
    if run is not None:
        run.leave()


def _is_send(request: Request) -> bool:
    return request is not None and request[1] == "send"


def _do(run: "TrackedRun", name: str, arguments: tuple[Any, ...]) -> Any:
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
        case _:
            getattr(run.outbox, name)(*arguments)
    return None


def _portable(error: Exception) -> Exception:
    """The error, which tells where it happened, or one that tells of it where it can't be sent."""
    error.add_note(format_exc())
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{error}\n{format_exc()}")


if __name__ == "__main__":
    main()
