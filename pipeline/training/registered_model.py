"""Trained models in MLflow's registry: found by their address, downloaded, and opened."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipeline.tracking.errors import reason_of, without_password
from pipeline.tracking.server import DATABASE, first_request
from pipeline.training.saved_model import CARD, TrainedModel, load_trained
from stochca.errors import UserError

ADDRESS = re.compile(r"models:/(?P<name>[^/@:]+)(@(?P<alias>[^/@:]+)|/(?P<version>\d+))")


def find_version(address: str) -> ModelVersion:
    """The version that an address means.

    Raises:
        UserError: there is none; the sentence names those that there are.
    """
    if not (match := ADDRESS.fullmatch(address)):
        raise UserError(f"{address} is no address; write models:/NAME@ALIAS or models:/NAME/VERSION")
    name, alias, version = match["name"], match["alias"], match["version"]
    client = registry()
    with registry_errors():
        aliases, versions = contents(client, name)
        if not versions:
            names = ", ".join(model.name for model in client.search_registered_models()) or "none at all"
            raise UserError(
                f"{address}: MLflow has no registered model {name!r} with a version; it has {names}"
            )
        if (alias or version) not in (aliases if alias else versions):
            known = ", ".join(f"@{alias} (version {number})" for alias, number in sorted(aliases.items()))
            what = f"alias {alias!r}" if alias else f"version {version}"
            raise UserError(
                f"{address}: the registered model {name!r} has no {what}; it has the versions "
                f"{', '.join(versions)}{f' and {known}' if known else ''}"
            )
        return client.get_model_version(name, aliases[alias] if alias else version)


def contents(client: MlflowClient, name: str) -> tuple[dict[str, str], list[str]]:
    """A registered model's aliases, each with its version, and its versions, the oldest first."""
    found = client.search_registered_models(f"name = '{name}'")
    versions = client.search_model_versions(f"name = '{name}'") if found else []
    numbers = sorted((str(version.version) for version in versions), key=int)
    return {alias: str(number) for alias, number in found[0].aliases.items()} if found else {}, numbers


def load_version(version: ModelVersion) -> TrainedModel:
    """Download a registered model; nothing of it is run or unpickled.

    Raises:
        UserError: its files are gone or damaged, or were not logged by a training stage.
    """
    address = f"models:/{version.name}/{version.version}"
    with tempfile.TemporaryDirectory() as folder, registry_errors():
        try:
            mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=folder)
        except (MlflowException, OSError) as error:
            raise UserError(f"the files of {address} can't be downloaded: {reason_of(error)}") from None
        cards = list(Path(folder).rglob(CARD))
        if len(cards) != 1:
            raise UserError(f"{address} was not logged by a training stage: it holds no {CARD}")
        try:
            return load_trained(cards[0].parent)
        except UserError as error:
            reason = str(error).partition(": ")[2].partition("; run")[0]
            raise UserError(f"{address} is damaged: {reason}") from None


def registry() -> MlflowClient:
    """MLflow's registry at `MLFLOW_TRACKING_URI`, or in the database here.

    Raises:
        UserError: there is none, or nothing answers.
    """
    with first_request() as uri:
        if not uri and not DATABASE.exists():
            raise UserError(
                f"there is no {DATABASE} here; set MLFLOW_TRACKING_URI to the server that is meant"
            )
        client = MlflowClient()
        client.search_registered_models(max_results=1)
    return client


@contextmanager
def registry_errors() -> Iterator[None]:
    """Turn what MLflow raises into one sentence."""
    try:
        yield
    except MlflowException as error:
        raise UserError(
            f"MLflow's model registry at {without_password(mlflow.get_registry_uri())} failed: "
            f"{reason_of(error)}; mend it and try again"
        ) from None
