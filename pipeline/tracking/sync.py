"""Publishes what MLflow lacks of runs that lost it: `stochca sync`."""

import os
from collections.abc import Iterator
from pathlib import Path

from mlflow import get_tracking_uri

from pipeline.runtime.exclusive import Held
from pipeline.runtime.paths import RUNS, UNSYNCED
from pipeline.tracking.labels import without_password
from pipeline.tracking.publish import NotSent, publish
from pipeline.tracking.run_folder import RUN, RunFolder, held, waiting_folders
from pipeline.tracking.server import reason_of
from stochca.errors import UserError


def sync() -> Iterator[str]:
    """Publish every folder in work/runs of which MLflow lacks something; a line for each when that is done.

    A run that is going on is left alone: it publishes itself. It may be interrupted and repeated.
    MLFLOW_TRACKING_URI, where it is set, says where the server is now; else it is where the run was.

    Raises:
        UserError: a server does not answer; or a folder can't be sent, said when the others have been.
    """
    waiting = waiting_folders()
    failed: list[NotSent] = []
    for folder in waiting:
        try:
            yield _sync(folder)
        except NotSent as error:
            failed.append(error)
    if failed:
        yield from map(str, failed[:-1])
        raise failed[-1]
    if not waiting:
        yield f"Nothing waits in {RUNS}: MLflow has everything"
    for left in sorted(UNSYNCED.glob("*/run.json")):
        raise UserError(
            f"{left.parent} was left by an earlier version of stochca, which alone can send it; check it out "
            "to send it with stochca sync, or remove the folder to forget it"
        )


def _sync(folder: Path) -> str:
    try:
        with held(folder):
            if not (folder / RUN).exists():
                return f"{folder.name}: has been sent meanwhile"
            status = _status(folder)
            publish(folder)
    except Held:
        return f"{folder.name}: not sent, for its run is still going on, or another stochca sync sends it"
    except UserError:
        raise
    except Exception as error:  # MLflow's own, a database's, that of a store of files
        uri = os.environ.get("MLFLOW_TRACKING_URI") or get_tracking_uri()
        raise NotSent(
            f"{folder} can't be sent to MLflow at {without_password(uri)}: {reason_of(error)}; set "
            "MLFLOW_TRACKING_URI to where the run is and try again, or remove the folder to forget it"
        ) from None
    ended = f"the run is {status}" if status != "RUNNING" else "the run was killed before it could end"
    return f"{folder.name}: sent all that was waiting; {ended}"


def _status(folder: Path) -> str:
    try:
        return str(RunFolder(folder).read(RUN)["status"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotSent(f"{folder} is damaged ({reason_of(error)}); remove it to go on without it") from None
