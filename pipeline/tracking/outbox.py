"""What a training run tells MLflow: sent while the server answers, kept in a folder while it does not.

work/unsynced/NAME-RUN/ holds what MLflow lacks of a run: run.json, params.json, tags.json,
metrics.jsonl, artifacts/ and model/. Sending removes what has arrived, so that it can be repeated
after any interruption, and a folder that is gone means that everything is there. One process at a time
writes into a folder or sends it: who has `held` it.
"""

import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient
from mlflow.utils.time import get_current_time_millis

from pipeline.runtime.exclusive import exclusive
from pipeline.runtime.files import write_json
from pipeline.runtime.paths import UNSYNCED
from pipeline.runtime.signals import postponed_signals
from pipeline.tracking.errors import reason_of, without_password
from pipeline.tracking.logged_model import log_model
from pipeline.tracking.patience import UPLOADS, WHILE_TRAINING, patience
from stochca.backbones.card import OWN_BACKBONE

FIRST_PAUSE, LONGEST_PAUSE = 30.0, 600.0  # seconds without a try after the server was lost; doubles
LARGEST_BATCH = 1000  # metrics that a server takes at once
RUN, PARAMS, TAGS, METRICS = "run.json", "params.json", "tags.json", "metrics.jsonl"
logger = logging.getLogger(__name__)


class Outbox:
    """Everything that one run has to tell. Adding never fails for the server's sake, nor does `send`."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self.folder = folder.resolve()
        self.run_id = run_id
        self.uri = mlflow.get_tracking_uri()
        self.client = MlflowClient(self.uri)
        self.waiting = _read_metrics(self.folder / METRICS)
        self._kept = len(self.waiting)  # so many of them are in the folder
        self._logged: dict[str, set[int]] = {}  # steps that the server has of each metric, as far as known
        self._pause, self._next_try = 0.0, 0.0  # a pause: the server is away

    @classmethod
    def of_run(cls, run_id: str, name: str) -> "Outbox":
        """The outbox of a run that starts or goes on, with what an interrupted process has left in it."""
        outbox = cls(folder_of(run_id, name), run_id)
        if outbox.folder.exists():
            outbox._keep(status=None, end_time=None)
        return outbox

    @property
    def artifacts(self) -> Path:
        """A folder for files to upload, which is there."""
        self._keep()
        return self._made(self.folder / "artifacts")

    def add_params(self, values: Mapping[str, Any]) -> None:
        """Params of the run; those from before an interruption stay, for MLflow refuses changes."""
        self._add(PARAMS, values)

    def add_tags(self, values: Mapping[str, str]) -> None:
        self._add(TAGS, values)

    def add_metrics(self, values: Mapping[str, float], step: int = 0, taken_at: int | None = None) -> None:
        """Metrics of a step; a step that MLflow has already is not sent again.

        Args:
            taken_at: milliseconds since 1970; None: now.
        """
        taken_at = get_current_time_millis() if taken_at is None else taken_at
        self.waiting.extend(Metric(key, value, taken_at, step) for key, value in values.items())

    def add_model(self, model: Path, example: np.ndarray, backbone: Path | None = None) -> None:
        """A trained model's folder, with uint8 images (B, height, width, 3) as an example of its input.

        With an adapter's goes its backbone's, without which it is worth nothing elsewhere.
        """
        self._keep()
        target = self._made(self.folder / "model")
        shutil.copytree(model, target / model.name, dirs_exist_ok=True)
        if backbone is not None:
            shutil.copytree(backbone, target / model.name / OWN_BACKBONE, dirs_exist_ok=True)
        np.save(target / "example.npy", example, allow_pickle=False)

    def add_pictures(
        self,
        events: Sequence[Mapping[str, Any]],
        labels: np.ndarray,
        predictions: np.ndarray,
        classes: Sequence[str],
    ) -> None:
        """Learning curves of a log's events, and the confusion matrix of labels and predictions, int (N,)."""
        from pipeline.tracking import pictures  # slow to load, and not everybody draws

        folder = self._made(self.artifacts / "pictures")
        pictures.learning_curves(events).savefig(folder / "curves.png")
        pictures.confusion_matrix(labels, predictions, classes).savefig(folder / "confusion_matrix.png")

    def send(self, *, now: bool = False, files: bool = True) -> bool:
        """Send what is waiting, without `files` the numbers alone; True when all that is sent has arrived.

        A server that is away is tried again after a pause that grows with each failure, or `now`.
        Losing it and having it back is one line of warning each.
        """
        if time.monotonic() < self._next_try and not now:
            self._keep()
            return False
        try:
            self.deliver(files=files)
        except Exception as error:  # MLflow's own, a database's, that of a store of files: training goes on
            self._keep()
            if not self._pause:
                logger.warning(
                    "MLflow at %s does not take what run %s logs (%s); training goes on, its log waits in %s",
                    without_password(self.uri), self.run_id, reason_of(error), UNSYNCED / self.folder.name,
                )  # fmt: skip
            self._pause = min(2 * self._pause or FIRST_PAUSE, LONGEST_PAUSE)
            self._next_try = time.monotonic() + self._pause
            return False
        if self._pause:
            logger.warning("MLflow at %s is back; what was waiting has been sent", without_password(self.uri))
        self._pause, self._next_try = 0.0, 0.0
        return True

    def deliver(self, *, files: bool = True) -> None:
        """Send what is waiting, in the order in which it matters, and remove what has arrived.

        Raises:
            Exception: whatever MLflow or its store of files raises.
        """
        with patience(WHILE_TRAINING), postponed_signals():
            self._deliver_params_and_tags()
            self._deliver_metrics()
            if not self.folder.exists() or (not files and self._has_files()):
                return
            self.client.get_run(self.run_id)  # found out here, a server that hangs costs no long time-outs
        with patience(UPLOADS):
            if (artifacts := self.folder / "artifacts").exists():
                self.client.log_artifacts(self.run_id, str(artifacts))
                shutil.rmtree(artifacts)
            if (models := self.folder / "model").exists():
                for card in models.glob("*/model.json"):
                    log_model(card.parent, np.load(models / "example.npy", allow_pickle=False), self.run_id)
                shutil.rmtree(models)
        run = self._read(RUN)
        if run.get("status"):
            with patience(WHILE_TRAINING), postponed_signals():
                self.client.set_terminated(self.run_id, run["status"], run["end_time"])
        shutil.rmtree(self.folder)

    def _has_files(self) -> bool:
        return any((self.folder / name).exists() for name in ("artifacts", "model"))

    def keep_end(self, status: str) -> None:
        """Keep how and when the run ended, for MLflow could not be told."""
        self._keep(status=status, end_time=get_current_time_millis())

    def _deliver_params_and_tags(self) -> None:
        params, tags = self._read(PARAMS), self._read(TAGS)
        if params:
            logged = self.client.get_run(self.run_id).data.params
            params = {key: value for key, value in params.items() if key not in logged}
        if params or tags:
            self.client.log_batch(
                self.run_id,
                params=[Param(key, value) for key, value in params.items()],
                tags=[RunTag(key, value) for key, value in tags.items()],
            )
        for name in (PARAMS, TAGS):
            (self.folder / name).unlink(missing_ok=True)

    def _deliver_metrics(self) -> None:
        metrics = list(self.waiting)  # other threads may add more meanwhile
        try:
            new = self._not_logged(metrics)
            for first in range(0, len(new), LARGEST_BATCH):
                self.client.log_batch(self.run_id, metrics=new[first : first + LARGEST_BATCH])
        except BaseException:
            self._logged = {}  # what was under way may have arrived
            raise
        for metric in new:
            self._logged[metric.key].add(metric.step)
        del self.waiting[: len(metrics)]
        self._kept = 0
        (self.folder / METRICS).unlink(missing_ok=True)

    def _not_logged(self, metrics: list[Metric]) -> list[Metric]:
        """Of metrics with the same name and step the first, and only where the server has none."""
        for key in {metric.key for metric in metrics} - self._logged.keys():
            history = self.client.get_metric_history(self.run_id, key)
            self._logged[key] = {point.step for point in history}
        new = {
            (metric.key, metric.step): metric
            for metric in reversed(metrics)
            if metric.step not in self._logged[metric.key]
        }
        return list(reversed(new.values()))

    def _add(self, name: str, values: Mapping[str, Any]) -> None:
        texts = {key: str(value) for key, value in values.items()}
        self._keep()
        write_json(self.folder / name, {**self._read(name), **texts})

    def _keep(self, **run: Any) -> None:
        """Write what is only in memory, and of which run it is, into the folder."""
        self._made(self.folder)
        known = self._read(RUN)
        if run or not known:
            uri = without_password(self.uri, instead="")
            write_json(self.folder / RUN, {"run_id": self.run_id, "tracking_uri": uri, **known, **run})
        new = self.waiting[self._kept :]
        with (self.folder / METRICS).open("a") as file:
            for metric in new:
                line = {"key": metric.key, "value": metric.value, "timestamp": metric.timestamp}
                file.write("\n" + json.dumps({**line, "step": metric.step}))
        self._kept += len(new)

    def _read(self, name: str) -> dict[str, Any]:
        with suppress(FileNotFoundError):
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        return {}

    def _made(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def folder_of(run_id: str, name: str) -> Path:
    """Where an outbox is: by the name, to be recognised, and by the run, for a name may be trained again."""
    return UNSYNCED / f"{name}-{run_id[:8]}"


def held(folder: Path) -> AbstractContextManager[None]:
    """Hold an outbox, there or not: its run does as long as it lives, `stochca sync` while it sends it.

    Raises:
        Held: somebody else holds it.
    """
    return exclusive(f"unsynced-{folder.name}")


def _read_metrics(path: Path) -> list[Metric]:
    """The metrics of a file, without a line that a kill cut off."""
    metrics = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with suppress(json.JSONDecodeError):
            metrics.append(Metric(**json.loads(line)))
    return metrics
