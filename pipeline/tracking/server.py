"""Where MLflow is, how long to wait for it, and what is wrong with it, in words."""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from textwrap import shorten

import mlflow
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException

from pipeline.runtime.boundary import first_line
from pipeline.runtime.exclusive import in_turn
from pipeline.runtime.paths import ARTIFACTS, DATABASE, database_uri, of_the_project, whole_address
from pipeline.tracking.labels import without_password
from pipeline.tracking.moved import follow_folder, root_of
from stochca.errors import UserError

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # which pages MLflow's UI shows
# How long MLflow's HTTP client waits: its own patience, minutes of retries, would hold training up.
_RETRIES, _TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"
FIRST_REQUEST = {_RETRIES: "2", _TIMEOUT: "8"}  # a server that is not there is found out in half a minute
WHILE_TRAINING = {_RETRIES: "1", _TIMEOUT: "8"}
UPLOADS = {_RETRIES: "1"}  # the time-out stays long: a server answers when it has stored the whole file


def connect(experiment: str, uri: str | None = None) -> str:
    """Point MLflow at `uri`, `MLFLOW_TRACKING_URI` or a database here; returns the experiment's id.

    Paths are absolute, so that runs can be found from anywhere.

    Raises:
        UserError: MLflow can't work with the address, nothing answers there, its files can't be put where it
            wants them, or the experiment was deleted.
    """
    with first_request(uri) as uri:
        is_file = uri is None or uri.startswith("sqlite:")
        found = _experiment(experiment, of_the_project(ARTIFACTS).as_uri() if is_file else None)
    _check_reachable(found, uri)
    if found.lifecycle_stage != "active":
        raise UserError(
            f"tracking.experiment {experiment!r} was deleted in MLflow; choose another name, or restore it: "
            f"mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return str(found.experiment_id)


def _check_reachable(experiment: Experiment, uri: str | None) -> None:
    """Refuse a server whose clients write files themselves, into a folder that is not of this machine."""
    root = root_of(experiment.artifact_location, experiment.experiment_id)
    if root is None or not (uri or "").startswith("http"):
        return
    if not root.parent.exists():  # the root itself is made with the first file
        raise UserError(
            f"MLFLOW_TRACKING_URI {without_password(str(uri))} keeps the files of the experiment "
            f"{experiment.name!r} in {root}, a folder of the server's machine; start the server without "
            "--no-serve-artifacts and set tracking.experiment to a new name, or use it from its machine"
        )


@contextmanager
def first_request(uri: str | None = None) -> Iterator[str | None]:
    """Point MLflow at an address as `connect` does, for a first request; gives it, None for a database here.

    Raises:
        UserError: the block failed; the sentence says what to set.
    """
    quiet()
    wanted = os.environ.get("MLFLOW_TRACKING_URI")
    uri = uri or wanted
    mlflow.set_tracking_uri(whole_address(uri) if uri else database_uri())
    if wanted is None:  # MLflow sets it, for processes that are started from here
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    try:
        with patience(FIRST_REQUEST), _one_makes_the_tables(mlflow.get_tracking_uri()):
            yield uri
            # Not before MLflow has taken the database for one of its own.
            follow_folder(mlflow.get_tracking_uri())
    except UserError:
        raise
    except Exception as error:  # MLflow's own, a database's, or that of a driver which is not installed
        raise UserError(why_unusable(uri, str(DATABASE), error)) from None


def _one_makes_the_tables(uri: str) -> AbstractContextManager[None]:
    """The first process at a new database file does, and two at once would fail."""
    kind, _, path = uri.partition(":///")
    return in_turn(Path(path).parent) if kind == "sqlite" else nullcontext()


def quiet() -> None:
    """MLflow's warnings alone, not of each request that is tried again; no bars, nothing sent home."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(
        logging.CRITICAL
    )  # tracebacks of what is raised anyway
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # once per run is too often


def _experiment(name: str, artifacts: str | None) -> Experiment:
    """The experiment of this name, made if there is none."""
    client = MlflowClient()
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found
    try:
        return client.get_experiment(client.create_experiment(name, artifacts, EXPERIMENT_TAGS))
    except MlflowException:
        if (found := client.get_experiment_by_name(name)) is None:
            raise
        return found  # another process was faster


@contextmanager
def patience(settings: Mapping[str, str]) -> Iterator[None]:
    """Set MLflow's environment variables for a while, where the user has not set them."""
    added = {key: value for key, value in settings.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)  # another thread may have


def reason_of(error: Exception) -> str:
    """The first line of an error, shortened."""
    reason = first_line(error)
    if re.search(r"failed with (timeout )?exception", reason):
        return "no server answers there"
    return shorten(without_password(reason), 300)


def why_unusable(uri: str | None, database: str, error: Exception) -> str:
    """Why MLflow can't work with MLFLOW_TRACKING_URI, or with the database here where `uri` is None."""
    reason = reason_of(error)
    if not uri:
        return (
            f"{database} can't be used as MLflow's database: {reason}; move it away, or set "
            "MLFLOW_TRACKING_URI to another"
        )
    if isinstance(error, UnsupportedModelRegistryStoreURIException):
        reason = "MLflow knows no such kind of address"
    elif reason != "no server answers there" and ("://" not in uri or uri.startswith("file:")):
        reason = "MLflow no longer tracks to a folder"
    return (
        f"MLFLOW_TRACKING_URI {without_password(uri)} can't be used: {reason}; set it to the address of a "
        "running MLflow server or to a database such as sqlite:///mlflow.db, or unset it to track to "
        f"{database}"
    )
