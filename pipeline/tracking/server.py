"""Where MLflow is, and what every run tells it about itself."""

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import mlflow
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipeline.runtime.exclusive import in_turn
from pipeline.runtime.paths import ARTIFACTS, DATABASE
from pipeline.tracking.errors import why_unusable
from pipeline.tracking.patience import FIRST_REQUEST, patience
from stochca.errors import UserError

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # which pages MLflow's UI shows


def connect(experiment: str, uri: str | None = None) -> str:
    """Point MLflow at `uri`, `MLFLOW_TRACKING_URI` or a database here; returns the experiment's id.

    Paths are absolute, so that runs can be found from anywhere.

    Raises:
        UserError: MLflow can't work with the address, nothing answers there, or the experiment was deleted.
    """
    with first_request(uri) as uri:
        found = _experiment(experiment, None if uri else ARTIFACTS.resolve().as_uri())
    if found.lifecycle_stage != "active":
        raise UserError(
            f"tracking.experiment {experiment!r} was deleted in MLflow; choose another name, or restore it: "
            f"mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return str(found.experiment_id)


@contextmanager
def first_request(uri: str | None = None) -> Iterator[str | None]:
    """Point MLflow at an address as `connect` does, for a first request; gives it, None for a database here.

    Raises:
        UserError: the block failed; the sentence says what to set.
    """
    quiet()
    wanted = os.environ.get("MLFLOW_TRACKING_URI")
    uri = uri or wanted
    mlflow.set_tracking_uri(uri or f"sqlite:///{DATABASE.resolve()}")
    if wanted is None:  # MLflow sets it, for processes that are started from here
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    try:
        with patience(FIRST_REQUEST), _one_makes_the_tables(mlflow.get_tracking_uri()):
            yield uri
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
