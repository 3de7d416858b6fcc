"""One at a time: what two would write at once, one of them is refused, or waits where it takes a moment."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.runtime.paths import WORK
from stochca.errors import UserError

_held_here: set[Path] = set()  # the system does not keep a process from what it holds itself


class Held(UserError):
    """Somebody else holds it."""


@contextmanager
def exclusive(name: str, otherwise: str | None = None) -> Iterator[None]:
    """Hold work/NAME.lock, which the system lets go of when the process is gone, however it ended.

    Raises:
        Held: somebody else holds it; `otherwise` is the sentence.
    """
    WORK.mkdir(exist_ok=True)
    path = (WORK / f"{name}.lock").absolute()
    file = None if path in _held_here else _locked(path)
    if file is None:
        raise Held(
            otherwise
            or f"another process is at work on {name} in this folder (it holds {WORK}/{path.name}); "
            "wait until it ends, or end it"
        )
    _held_here.add(path)
    try:
        yield
    finally:
        _held_here.remove(path)
        path.unlink(missing_ok=True)
        os.close(file)


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Others that come here with the same folder meanwhile wait; this writes nothing into it."""
    try:
        opened = os.open(folder, os.O_RDONLY)
    except OSError:  # what is done there will say so
        yield
        return
    try:
        with suppress(OSError):  # some network file systems lock no folders
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def _locked(path: Path) -> int | None:
    """The open file, locked; None where another process has it."""
    while True:
        file = os.open(path, os.O_CREAT | os.O_RDWR)
        try:
            # Not flock, which forked processes keep: those that load images outlive a kill by some seconds.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        except (BlockingIOError, PermissionError):
            os.close(file)
            return None
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(file)
            raise UserError(
                f"{path} can't be locked ({error.strerror}): its file system has no locks, by which two "
                f"processes keep apart; make {WORK} a link to a folder on one that has, such as a local disk"
            ) from None
        os.close(file)  # who held it has just removed it
