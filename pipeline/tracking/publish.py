"""Makes MLflow equal to a run's folder.

It asks the server what it has, and sends the rest: it may be repeated after any interruption.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import (
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)

from pipeline.runtime.files import write_json
from pipeline.runtime.paths import RESULTS
from pipeline.runtime.user import user_name
from pipeline.tracking.labels import allowed
from pipeline.tracking.logged_model import log_model
from pipeline.tracking.run_folder import (
    ARTIFACTS,
    CHILDREN,
    ENDS,
    LOG,
    METRICS,
    MLFLOW,
    MODEL,
    PUBLISHED,
    RUN,
    SYSTEM,
    RunFolder,
    held,
)
from pipeline.tracking.server import UPLOADS, WHILE_TRAINING, connect, first_request, patience, reason_of
from stochca.errors import UserError

LARGEST_BATCH = 1000  # metrics that a server takes at once
NAMES = {  # of the events of a training log -> MLflow's names of their numbers
    "step": {"loss": "train_loss", "lr": "lr", "images_per_second": "images_per_second"},
    "eval": {"loss": "validation_loss", "accuracy": "validation_accuracy"},
}


class NotSent(UserError):
    """A folder can't be sent, which says nothing of others."""


def publish(folder: Path) -> None:
    """Make MLflow equal to the folder of a run, and of those nested under it.

    What a finished run would go on from stays, or nothing of it.

    Raises:
        UserError: the tracking server can't be used.
        Exception: it was lost meanwhile; whatever MLflow, a database or its store of files raises.
    """
    publisher = Publisher(folder)
    publisher.connect()
    publisher.start()
    publisher.send_numbers()
    publisher.send_files()
    publisher.end()
    publisher.tidy()


def why_it_waits(*folders: Path) -> str | None:
    """Publish the folders of runs that have ended; where one can't be now, why not: `stochca sync` will.

    Those after it are not tried then.
    """
    reason = None
    for folder in folders:
        reason = reason or _why_not_now(folder)
        RunFolder(folder).keep()
    return reason


def _why_not_now(folder: Path) -> str | None:
    try:
        with held(folder):
            publish(folder)
    except UserError as error:
        return str(error)
    except Exception as error:  # MLflow's own, a database's, that of a store of files
        return reason_of(error)
    return None


class Publisher:
    """Publishes a run's folder again and again while the run goes on.

    Args:
        parent: the publisher of the run that this one is nested under.
    """

    def __init__(self, folder: Path, parent: "Publisher | None" = None) -> None:
        self.folder, self.run = folder, RunFolder(folder)
        self.parent = parent
        self.run_id = self.experiment_id = ""
        self.children: dict[str, Publisher] = {}
        self._sent: dict[str, Any] = {}  # what run.json said when it was last sent
        self._places = dict.fromkeys((LOG, METRICS, SYSTEM), 0)  # bytes that have been read
        self._logged: dict[str, set[int]] = {}  # steps that the server has of each metric
        self._has_sent_files = False

    @property
    def status(self) -> str:
        """How the run ended, or RUNNING; a run that nobody ended goes with its parent."""
        own = str(self.run.read(RUN).get("status", "RUNNING"))
        return self.parent.status if self.parent and own == "RUNNING" else own

    def connect(self) -> None:
        """Ask the server for the first time.

        Raises:
            UserError: it can't be used.
        """
        run = self.run.read(RUN)
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or run.get("tracking_uri") or None
        if self.is_of_known_run:
            with first_request(self.uri):
                _check_known(self.run.run_id)
        else:
            self.experiment_id = connect(run["experiment"], self.uri)
        self.client = MlflowClient()

    def start(self) -> None:
        """Find the run that the folder is of, or make it; it is going on then.

        Raises:
            UserError: the tracking server can't be used.
        """
        (self.folder / PUBLISHED).unlink(missing_ok=True)
        if self.is_of_known_run:
            self.run_id = self.run.run_id
            return
        with first_request(self.uri):
            self.run_id = self._found() or self._made()
            write_json(self.folder / MLFLOW, {"run_id": self.run_id})

    @property
    def is_of_known_run(self) -> bool:
        """Whether the folder only adds to a run that has ended."""
        return bool(self.run.read(RUN).get("known"))

    def send_numbers(self) -> None:
        """Params, tags and metrics, of this run and those nested under it."""
        with patience(WHILE_TRAINING):
            self._send_settings()
            for name in (LOG, METRICS, SYSTEM):
                self._send_metrics(name)
        for child in self._children():
            child.send_numbers()

    def send_files(self) -> None:
        """Pictures, files and the model of runs that have ended otherwise than by a kill."""
        for child in self.children.values():
            child.send_files()
        if self.status not in ("FINISHED", "FAILED"):
            return
        results = self.folder / ARTIFACTS / RESULTS
        if self.status == "FINISHED" and (results / "predictions.parquet").exists():
            from pipeline.tracking.pictures import draw  # slow to load, and not every run has pictures

            draw(results, self.folder / ARTIFACTS / "pictures")
        with patience(WHILE_TRAINING):  # found out here, a server that hangs costs no long time-outs
            self.client.get_run(self.run_id)
        with patience(UPLOADS):
            if (artifacts := self.folder / ARTIFACTS).exists():
                self.client.log_artifacts(self.run_id, str(artifacts))
            for card in (self.folder / MODEL).glob("*/model.json"):
                example = np.load(card.parents[1] / "example.npy", allow_pickle=False)
                log_model(card.parent, example, self.run_id)
        self._has_sent_files = True

    def end(self) -> None:
        """Tell MLflow how the run ended, if it did."""
        for child in self.children.values():
            child.end()
        run = self.run.read(RUN)
        if self.status in ENDS and not self.is_of_known_run:
            with patience(WHILE_TRAINING):
                end_time = run.get("end_time") or (self.parent and self.parent.run.read(RUN)["end_time"])
                self.client.set_terminated(self.run_id, self.status, end_time)
                if self.status == "FINISHED":
                    self._delete_replaced(run["replaces"])

    def tidy(self) -> None:
        """Mark the folder as one of which MLflow lacks nothing, and remove what nobody needs more."""
        if self.status in ENDS and not self._has_sent_files and self._has_files():
            return
        (self.folder / PUBLISHED).touch()
        if self.status == "FINISHED":
            self.run.discard_sent()

    def _children(self) -> Iterator["Publisher"]:
        """Those that there is something new of."""
        for file in sorted((self.folder / CHILDREN).glob(f"*/{RUN}")):
            name = file.parent.name
            if name not in self.children:
                child = self.children[name] = Publisher(file.parent, self)
                child.client, child.uri, child.experiment_id = self.client, self.uri, self.experiment_id
                child.start()
            yield self.children[name]

    def _found(self) -> str | None:
        """The run that is gone on with, if MLflow has it and not as a deleted one."""
        run_id = self.run.read(MLFLOW).get("run_id")
        if run_id is not None:
            run = _known(self.client, run_id)
            if run is not None and run.info.lifecycle_stage == "active":
                self.client.update_run(run_id, status="RUNNING")
                return str(run_id)
        return None

    def _delete_replaced(self, replaces: Mapping[str, str]) -> None:
        """The runs before with these tags, of the same user."""
        if not replaces:
            return
        tags = {**replaces, MLFLOW_USER: self.client.get_run(self.run_id).data.tags[MLFLOW_USER]}
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        for found in self.client.search_runs([self.experiment_id], query):
            if found.info.run_id != self.run_id:
                self.client.delete_run(found.info.run_id)

    def _made(self) -> str:
        run = self.run.read(RUN)
        tags = {MLFLOW_SOURCE_NAME: run["source"], MLFLOW_SOURCE_TYPE: "LOCAL", MLFLOW_USER: user_name()}
        tags |= {**run["replaces"], **run["tags"]}
        if self.parent:
            tags[MLFLOW_PARENT_RUN_ID] = self.parent.run_id
        made = self.client.create_run(self.experiment_id, tags=tags, run_name=run["name"])
        return str(made.info.run_id)

    def _send_settings(self) -> None:
        run = self.run.read(RUN)
        if run == self._sent:
            return
        there = self.client.get_run(self.run_id)
        names = allowed(run["params"])
        params = {names[k]: text for k, text in run["params"].items() if names[k] not in there.data.params}
        tags = {key: value for key, value in run["tags"].items() if there.data.tags.get(key) != value}
        if params or tags:
            self.client.log_batch(
                self.run_id,
                params=[Param(key, value) for key, value in params.items()],
                tags=[RunTag(key, value) for key, value in tags.items()],
            )
        for adopted in run.get("adopts", ()):
            with suppress(MlflowException):  # it was tracked elsewhere, or deleted
                self.client.set_tag(adopted, MLFLOW_PARENT_RUN_ID, self.run_id)
        self._sent = run

    def _send_metrics(self, name: str) -> None:
        path, place = self.folder / name, self._places[name]
        if not path.exists():
            return
        if path.stat().st_size < place:  # an interrupted training has begun its log again
            place = 0
        with path.open("rb") as file:
            file.seek(place)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        metrics = [metric for line in whole.splitlines() for metric in _metrics(line)]
        new = self._not_logged([metric for metric in metrics if metric.step is not None])
        new += self._replacing([metric for metric in metrics if metric.step is None])
        try:
            for first in range(0, len(new), LARGEST_BATCH):
                self.client.log_batch(self.run_id, metrics=new[first : first + LARGEST_BATCH])
        except BaseException:
            self._logged = {}  # what was under way may have arrived
            raise
        for metric in new:
            self._logged.setdefault(metric.key, set()).add(metric.step)
        self._places[name] = place + len(whole)

    def _not_logged(self, metrics: list[Metric]) -> list[Metric]:
        """Of numbers with the same name and step the first, and only where the server has none."""
        for key in {metric.key for metric in metrics} - self._logged.keys():
            history = self.client.get_metric_history(self.run_id, key)
            self._logged[key] = {point.step for point in history}
        new: dict[tuple[str, int], Metric] = {}
        for metric in metrics:
            if metric.step not in self._logged[metric.key]:
                new.setdefault((metric.key, metric.step), metric)
        return list(new.values())

    def _replacing(self, metrics: list[Metric]) -> list[Metric]:
        """Of numbers of the whole run the last with each name, where the server has another."""
        if not metrics:
            return []
        there = self.client.get_run(self.run_id).data.metrics
        last = {metric.key: metric for metric in metrics}
        return [
            Metric(metric.key, metric.value, metric.timestamp, 0)
            for metric in last.values()
            if there.get(metric.key) != metric.value
        ]

    def _has_files(self) -> bool:
        return any((self.folder / name).exists() for name in (ARTIFACTS, MODEL))


def _check_known(run_id: str) -> None:
    """Raise `NotSent` if the server has no such run."""
    if _known(MlflowClient(), run_id) is None:
        raise NotSent(
            f"MLflow has no run {run_id} here; set MLFLOW_TRACKING_URI to the server that the model was "
            "tracked with"
        )


def _known(client: MlflowClient, run_id: str) -> Run | None:
    """A run, a deleted one too; None: the server says that it has none, as one that is away can't."""
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    return None


def _metrics(line: bytes) -> Iterator[Metric]:
    """The numbers of a line of log.jsonl, metrics.jsonl or system.jsonl; none of one that was cut off."""
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return
    kind = event.get("event")
    values = event["values"] if kind is None else {new: event[old] for old, new in NAMES[kind].items()}
    if "selection" in event:  # the metric that chooses the weights
        values[f"validation_{event['selection']}"] = event["value"]
    names = allowed(values)
    for key, value in values.items():
        yield Metric(names[key], value, event["time"], event["step"])
