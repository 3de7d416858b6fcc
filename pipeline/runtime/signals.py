"""SIGTERM and Ctrl-C end a run in order: they unwind the stack, once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(SystemExit):
    """SIGTERM arrived; unwinds the stack so that the run ends as KILLED."""


class UnwindingSignals:
    """A handler that raises for the first signal alone, and only inside of `raised`."""

    def __init__(self) -> None:
        self.arrived: int | None = None
        self._raises = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.arrived = self.arrived or number
        if self._raises:
            self._raises = False
            self.raise_if_arrived()

    @contextmanager
    def raised(self) -> Iterator[None]:
        self._raises = True
        try:
            self.raise_if_arrived()
            yield
        finally:
            self._raises = False

    def raise_if_arrived(self) -> None:
        """Raise KeyboardInterrupt for SIGINT, Terminated for SIGTERM."""
        if self.arrived == signal.SIGINT:
            raise KeyboardInterrupt
        if self.arrived is not None:
            raise Terminated(128 + self.arrived)


@contextmanager
def unwinding_signals() -> Iterator[UnwindingSignals]:
    """Take SIGTERM and SIGINT; what arrived and was not raised yet is raised when the block has ended.

    SIGINT gets this handler also where it was ignored, as shells do it for jobs in the background: an
    orchestrator that ends the process group with it must reach the run.
    """
    handler = UnwindingSignals()
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield handler
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
    handler.raise_if_arrived()
