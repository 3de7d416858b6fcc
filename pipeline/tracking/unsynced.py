"""Sends MLflow what it lacks of runs that lost it: `stochca sync`."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import mlflow

from pipeline.runtime.exclusive import Held
from pipeline.tracking.errors import reason_of, without_password
from pipeline.tracking.outbox import RUN, UNSYNCED, Outbox, held
from pipeline.tracking.server import quiet
from stochca.errors import UserError


def sync() -> Iterator[str]:
    """Send everything that waits in work/unsynced, run by run; a line for each when it is sent.

    A run that is going on is left alone: what it has not written whole must not be sent as if it were.
    It may be interrupted and repeated: what has arrived is not sent again. MLFLOW_TRACKING_URI, where it
    is set, says where the server is now; else it is where the run was.

    Raises:
        UserError: a server does not answer or has no such run, or a folder is damaged.
    """
    waiting = sorted(file.parent for file in UNSYNCED.glob(f"*/{RUN}"))
    moved = os.environ.get("MLFLOW_TRACKING_URI")  # MLflow sets it to whichever it is pointed at
    for folder in waiting:
        yield _sync(folder, moved)
    if not waiting:
        yield f"Nothing waits in {UNSYNCED}: MLflow has everything"


def _sync(folder: Path, moved: str | None) -> str:
    try:
        with held(folder):
            if not (folder / RUN).exists():
                return f"{folder.name}: has been sent meanwhile"
            return _send(folder, moved)
    except Held:
        return f"{folder.name}: not sent, for its run is still going on, or another stochca sync sends it"


def _send(folder: Path, moved: str | None) -> str:
    quiet()
    try:
        run = json.loads((folder / RUN).read_text(encoding="utf-8"))
        run_id, uri = run["run_id"], moved or run["tracking_uri"]
        mlflow.set_tracking_uri(uri)
        outbox = Outbox(folder, run_id)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} is damaged ({reason_of(error)}); remove it to go on without it") from None
    numbers = len(outbox.waiting)
    try:
        outbox.deliver()
    except Exception as error:  # MLflow's own, a database's, that of a store of files
        raise UserError(
            f"{folder} can't be sent to MLflow at {without_password(uri)}: {reason_of(error)}; set "
            "MLFLOW_TRACKING_URI to where the run is and try again, or remove the folder to forget it"
        ) from None
    status = run.get("status")
    ended = f"the run is {status}" if status else "the run was killed before it could end"
    return f"{folder.name}: sent {numbers} numbers and all that was waiting; {ended}"
