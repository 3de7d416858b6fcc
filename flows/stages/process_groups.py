"""Commands in process groups of their own, which are ended whole when the flow ends."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

# Together below the 30 seconds that Prefect's runner gives a flow run to end.
SECONDS_TO_END_GENTLY = 15.0  # on SIGINT DVC waits for its command, and releases its locks
SECONDS_TO_END = 5.0


class Ended(Exception):
    """The flow is ending, so no command is started any more."""


class ProcessGroups:
    """The commands that a flow has running.

    Tasks run in threads, which signals and exceptions of the flow do not reach; so the flow's own thread
    ends what they started, with `end_all`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: list[subprocess.Popen[str]] = []
        self.ended = False

    @contextmanager
    def start(
        self, command: Sequence[str], environment: Mapping[str, str]
    ) -> Iterator[subprocess.Popen[str]]:
        """Start a command whose output, stderr included, is read line by line from its stdout.

        Raises:
            Ended: `end_all` was called.
        """
        with self._lock:
            if self.ended:
                raise Ended
            process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            self._live.append(process)
        try:
            yield process
        finally:
            with self._lock:
                self._live.remove(process)
            if process.poll() is None:
                end_groups([process])
            assert process.stdout is not None
            process.stdout.close()

    def end_all(self) -> None:
        """End every live group and let no other start; returns when all are gone."""
        with self._lock:
            self.ended = True
            live = list(self._live)
        end_groups(live)


def end_groups(processes: Sequence[subprocess.Popen[str]], gently: signal.Signals = signal.SIGINT) -> None:
    """End whole groups at once: `gently` first, then with SIGTERM, then with SIGKILL, each after its time."""
    waiting = list(processes)
    for number, seconds in (
        (gently, SECONDS_TO_END_GENTLY),
        (signal.SIGTERM, SECONDS_TO_END),
        (signal.SIGKILL, SECONDS_TO_END),
    ):
        waiting = [process for process in waiting if _signal(process, number)]
        deadline = time.monotonic() + seconds
        while waiting and time.monotonic() < deadline:
            time.sleep(0.05)
            waiting = [process for process in waiting if _signal(process, 0)]


def _signal(process: subprocess.Popen[str], number: int) -> bool:
    """Send a signal to the group (0: none); whether there still is one."""
    process.poll()  # a group lasts as long as its first process is not reaped
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):  # macOS answers so for a group of zombies
        return False
    return True


def listen_to_ctrl_c() -> None:
    """Undo that a shell starts background jobs with Ctrl-C ignored, which commands would inherit."""
    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
