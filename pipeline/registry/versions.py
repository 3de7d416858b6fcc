"""MLflow's model registry: trained models become versions, aliases say which of them is in use."""

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import mlflow
from mlflow.entities import LoggedModel, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipeline.report.results import RESULTS, Run
from pipeline.runtime.paths import DATABASE, of_the_project
from pipeline.tracking.labels import without_password
from pipeline.tracking.logged_model import logged_models
from pipeline.tracking.run_folder import waiting_folder
from pipeline.tracking.server import first_request, reason_of
from pipeline.training.saved_model import CARD, NotAtHand, TrainedModel, load_trained
from stochca.errors import UserError

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"  # the aliases
ADDRESS = re.compile(r"models:/(?P<name>[^/@:]+)(@(?P<alias>[^/@:]+)|/(?P<version>\d+))")
OF_MLFLOW = "registered_model_meta"  # the file that MLflow puts beside what it has downloaded
# The tags of a version that must not become the champion by itself again, and of what it holds.
ROLLED_BACK, WEIGHTS = "rolled_back", "weights_sha256"


def register(client: MlflowClient, name: str, run: Run) -> ModelVersion:
    """Make the model of a finished training run a version of the registered model `name`, once.

    Raises:
        UserError: MLflow has no such run, or no model of it.
    """
    run_id = run.description["mlflow_run_id"]
    if (waiting := waiting_folder(run_id)) is not None:
        raise UserError(
            f"MLflow lacks a part of {RESULTS / run.name}, which is in {waiting}; run: stochca sync"
        )
    if (version := version_of(client, name, run_id)) is not None:
        return version
    try:
        ready = _ready_models(client, run_id)
    except MlflowException:
        raise UserError(
            f"MLflow has no run {run_id}, which trained {RESULTS / run.name}; set MLFLOW_TRACKING_URI to "
            "where it was tracked, or train it again"
        ) from None
    if not ready:
        raise UserError(
            f"MLflow has no model of {RESULTS / run.name}; set tracking.log_model: true in params.yaml and "
            "train it again with dvc repro --force"
        )
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    tags = {
        "method": run.method,
        "target": run.target,
        "seed": run.seed,
        "dataset": run.description["dataset"]["name"],
        "dataset_fingerprint": run.description["dataset"]["fingerprint"],
        "git_commit": run.description["git_commit"],
    }
    for metric in dict.fromkeys(("accuracy", run.description["selection"])):
        found = {key: run.metrics.get(key) for key in (f"test_{metric}", f"validation_{metric}")}
        tags |= {key: value for key, value in found.items() if value is not None}
    model_id = ready[0].model_id
    return client.create_model_version(
        name,
        f"models:/{model_id}",
        run_id,
        tags={key: str(value) for key, value in tags.items()},
        model_id=model_id,
    )


def can_be_registered(client: MlflowClient, run: Run) -> bool:
    """Whether MLflow has the run's model, or will have once `stochca sync` has sent it."""
    run_id = run.description["mlflow_run_id"]
    try:
        return waiting_folder(run_id) is not None or bool(_ready_models(client, run_id))
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":  # tracked elsewhere
            return False
        raise


def _ready_models(client: MlflowClient, run_id: str) -> list[LoggedModel]:
    logged = logged_models(client, client.get_run(run_id))
    return [model for model in logged if model.status == LoggedModelStatus.READY]


def version_of(client: MlflowClient, name: str, run_id: str) -> ModelVersion | None:
    """The version that a run's model is, if it is registered."""
    for version in client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
        return client.get_model_version(name, version.version)
    return None


def version_called(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version with an alias, if there is one."""
    aliases, _ = contents(client, name)
    return client.get_model_version(name, aliases[alias]) if alias in aliases else None


def same_weights(client: MlflowClient, name: str, version: str) -> list[ModelVersion]:
    """The versions with the weights of one, itself among them: the same training gives them in every run."""
    weights = client.get_model_version(name, version).tags.get(WEIGHTS)
    return [
        each
        for each in client.search_model_versions(f"name = '{name}'")
        if str(each.version) == version or (weights is not None and each.tags.get(WEIGHTS) == weights)
    ]


def weights_of(version: ModelVersion) -> str | None:
    """The digest of a version's weights, as its card has it; None: its files are gone or damaged."""
    with suppress(UserError, ValueError, KeyError), _downloaded(version) as folder:
        return str(json.loads((folder / CARD).read_text(encoding="utf-8"))["weights_sha256"])
    return None


def crown(client: MlflowClient, name: str, version: str) -> str | None:
    """Make a version the champion; the one before, which is given, becomes `previous`."""
    aliases, _ = contents(client, name)
    before = aliases.get(CHAMPION)
    if before is not None:
        client.set_registered_model_alias(name, PREVIOUS, before)
    client.set_registered_model_alias(name, CHAMPION, version)
    if aliases.get(CHALLENGER) == version:
        client.delete_registered_model_alias(name, CHALLENGER)
    return before


def rollback(name: str, to: str | None = None) -> str:
    """Make `previous`, or the version `to`, the champion again; says what was done.

    The version that was the champion is marked, so that the next promotion does not bring it back, nor its
    weights from another run; it becomes `previous`, so that the rollback can be rolled back.

    Raises:
        UserError: there is no such version, or it is the champion already.
    """
    client = registry()
    with registry_errors():
        aliases, versions = contents(client, name)
        known = f"its versions are {', '.join(versions)}" if versions else "it has no version"
        target = to or aliases.get(PREVIOUS)
        if target is None:
            raise UserError(
                f"the registered model {name!r} has no alias {PREVIOUS!r}; choose with --to: {known}"
            )
        if target not in versions:
            raise UserError(f"the registered model {name!r} has no version {target}; {known}")
        if target == aliases.get(CHAMPION):
            raise UserError(f"version {target} of {name} is the champion already; {known}")
        before = crown(client, name, target)
        for version in same_weights(client, name, target):
            if ROLLED_BACK in version.tags:
                client.delete_model_version_tag(name, version.version, ROLLED_BACK)
        if before is None:
            return f"version {target} of {name} is now the champion"
        client.set_model_version_tag(name, before, ROLLED_BACK, datetime.now(UTC).isoformat("T", "minutes"))
        return (
            f"version {target} of {name} is the champion again, in place of version {before}, which is not "
            f"promoted again; undo it with: stochca rollback"
        )


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
    with _downloaded(version) as folder:
        try:
            return load_trained(folder)
        except NotAtHand as error:  # to train again makes another version
            needed = str(error).replace(str(folder), _address(version)).partition(", or train")[0]
            raise NotAtHand(needed) from None
        except UserError as error:
            reason = str(error).partition(": ")[2].partition("; run")[0]
            raise UserError(f"{_address(version)} is damaged: {reason}") from None


@contextmanager
def _downloaded(version: ModelVersion) -> Iterator[Path]:
    """The folder of a version's model, as a training stage wrote it; as `load_version`."""
    address = _address(version)
    with tempfile.TemporaryDirectory() as folder, registry_errors():
        try:
            mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=folder)
        except (MlflowException, OSError) as error:
            raise UserError(f"the files of {address} can't be downloaded: {reason_of(error)}") from None
        if not any(path.is_file() and path.name != OF_MLFLOW for path in Path(folder).rglob("*")):
            place = MlflowClient().get_model_version_download_uri(version.name, version.version)
            raise UserError(f"the files of {address} are gone from {place}; bring them back")
        cards = list(Path(folder).rglob(CARD))
        if len(cards) != 1:
            raise UserError(f"{address} was not logged by a training stage: it holds no {CARD}")
        yield cards[0].parent


def _address(version: ModelVersion) -> str:
    return f"models:/{version.name}/{version.version}"


def registry() -> MlflowClient:
    """MLflow's registry at `MLFLOW_TRACKING_URI`, or in the database here.

    Raises:
        UserError: there is none, or nothing answers.
    """
    with first_request() as uri:
        if not uri and not of_the_project(DATABASE).exists():
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
