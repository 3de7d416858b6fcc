"""One flow at a time in a workspace, and none while somebody's own DVC works there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.params import Params, load_params
from pipeline.config.precheck import check_project
from pipeline.runtime.exclusive import exclusive
from stochca.errors import UserError

if TYPE_CHECKING:
    from psutil import Process

LOCKED_PATHS = Path(".dvc/tmp/rwlock")  # in which DVC notes who reads and writes what


@contextmanager
def held_workspace() -> Iterator[Params]:
    """Hold the workspace that the process runs in, and give its params.yaml, checked.

    Raises:
        UserError: another flow or DVC holds it, params.yaml has a mistake, or dvc.lock can't be read.
    """
    otherwise = "another flow run holds this workspace; wait until it ends, or cancel it in Prefect's UI"
    with exclusive("flow", otherwise):
        refuse_running_dvc()
        params = load_params()
        check_project(params)
        yield params


def refuse_running_dvc() -> None:
    """Raise `UserError` when DVC runs here; drop what processes that are gone have left in its lock file.

    DVC itself waits for as long as a process has the number that it noted, whatever that process is.
    """
    import psutil

    for process in psutil.process_iter(["pid", "cmdline"]):
        command = _dvc_command(process.info["cmdline"] or [])
        if command is not None and _works_here(process):
            raise UserError(
                f"DVC is running in this workspace: {command} (pid {process.pid}); wait until it ends, or "
                f"stop it with kill -INT {process.pid}"
            )
    LOCKED_PATHS.unlink(missing_ok=True)


def _dvc_command(words: list[str]) -> str | None:
    """``dvc repro`` for any of the ways to start it; None for another program."""
    names = [Path(word).name for word in words]
    return " ".join(["dvc", *words[names.index("dvc") + 1 :]]) if "dvc" in names[:3] else None


def _works_here(process: "Process") -> bool:
    import psutil

    try:
        return Path(process.cwd()).is_relative_to(Path.cwd())
    except psutil.Error:  # it has ended since, or is another user's
        return False
