"""One flow at a time in a workspace, and none while somebody's own DVC works there."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.config.params import Params, load_params
from pipeline.config.precheck import check_inputs, check_lock
from pipeline.runtime.exclusive import exclusive
from stochca.errors import UserError

DVC_FOLDER = Path(".dvc/tmp")


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
        check_inputs(params)
        check_lock()
        yield params


def refuse_running_dvc() -> None:
    """Raise `UserError` when DVC runs here; drop what processes that are gone have left in its lock file."""
    planning = _repo_lock_holder()
    for pid in [*planning, *_path_lock_holders()]:
        command = _dvc_command(pid) or ("a program that uses it" if pid in planning else None)
        if command is not None:
            raise UserError(
                f"DVC is running in this workspace: {command} (pid {pid}); wait until it ends, or stop it "
                f"with kill -INT {pid}"
            )
    (DVC_FOLDER / "rwlock").unlink(missing_ok=True)


def _repo_lock_holder() -> list[int]:
    """The process that holds DVC's lock of the whole repository, which it does while it plans and hashes."""
    from zc import lockfile

    path = DVC_FOLDER / "lock"
    if not path.exists():
        return []
    try:
        lockfile.LockFile(str(path)).close()
    except lockfile.LockError:
        return [int(number) for number in path.read_text().split()[:1]]
    return []


def _path_lock_holders() -> list[int]:
    """The processes in DVC's lock of single files, which it holds while a stage's command runs."""
    try:
        locks = json.loads((DVC_FOLDER / "rwlock").read_text())
        writers = list(locks.get("write", {}).values())
        readers = [reader for infos in locks.get("read", {}).values() for reader in infos]
        return sorted({int(info["pid"]) for info in writers + readers if info})
    except (OSError, ValueError, AttributeError, KeyError, TypeError):  # not there, or cut off by a kill
        return []


def _dvc_command(pid: int) -> str | None:
    """The command line of a living DVC process; None if it is gone, or if another has its number now."""
    import psutil

    try:
        command = psutil.Process(pid).cmdline()
    except psutil.Error:
        return None
    names = [Path(part).name for part in command]
    return " ".join(["dvc", *command[names.index("dvc") + 1 :]]) if "dvc" in names else None
