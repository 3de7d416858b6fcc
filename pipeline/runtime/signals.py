"""SIGTERM and Ctrl-C end a run in order: they unwind the stack, but never while MLflow opens or closes it.

Nor while it is told something: a database whose transaction is torn apart stays locked for this process,
which then could not tell how the run ended.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(SystemExit):
    """SIGTERM arrived; unwinds the stack so that the run ends as KILLED."""


class HeldSignals:
    """A handler that raises for the first signal alone, and only inside of `released`."""

    def __init__(self) -> None:
        self.held = True
        self.arrived: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.arrived = self.arrived or number
        if not self.held:
            self.held = True
            self.raise_if_arrived()

    @contextmanager
    def released(self) -> Iterator[None]:
        self.held = False
        try:
            self.raise_if_arrived()
            yield
        finally:
            self.held = True

    def raise_if_arrived(self) -> None:
        """Raise KeyboardInterrupt for SIGINT, Terminated for SIGTERM."""
        if self.arrived == signal.SIGINT:
            raise KeyboardInterrupt
        if self.arrived is not None:
            raise Terminated(128 + self.arrived)


@contextmanager
def held_signals() -> Iterator[HeldSignals]:
    """Hold SIGTERM and SIGINT back; what arrived and was not raised yet is raised when the block has ended.

    SIGINT gets this handler also where it was ignored, as shells do it for jobs in the background: an
    orchestrator that ends the process group with it must reach the run.
    """
    handler = HeldSignals()
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield handler
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
    handler.raise_if_arrived()


@contextmanager
def postponed_signals() -> Iterator[None]:
    """Within `released`: let no signal interrupt the block; what has arrived is raised behind it."""
    handler = signal.getsignal(signal.SIGTERM)
    if not isinstance(handler, HeldSignals) or handler.held:
        yield
        return
    handler.held = True
    try:
        yield
    finally:
        handler.held = False
        if handler.arrived is not None:
            handler.held = True
            handler.raise_if_arrived()
