"""The trials in MLflow: runs nested under the run of the search. Written by one process alone."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from mlflow.entities import Metric, Param, RunStatus
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from mlflow.utils.time import get_current_time_millis

from pipeline.search.records import METRIC, Record
from pipeline.search.space import prob_of
from pipeline.tracking.errors import reason_of
from pipeline.tracking.patience import WHILE_TRAINING, patience

TRIAL = "trial"  # the tag that a trial's run is found again by, after an interruption
logger = logging.getLogger(__name__)


def _survives(method: Callable[..., None]) -> Callable[..., None]:
    """A tracking server that has gone must not end a search of hours."""

    @wraps(method)
    def call(self: "Children", *arguments: Any) -> None:
        try:
            with patience(WHILE_TRAINING):
                method(self, *arguments)
        except Exception as error:  # as in Outbox.send
            logger.warning("trials did not reach MLflow: %s", reason_of(error))

    return call


class Children:
    """One run per trial, under `parent`."""

    def __init__(self, parent: str, seeds: Sequence[int]) -> None:
        self.client = MlflowClient()
        self.parent = parent
        self.seeds = seeds
        self.experiment: str | None = None  # not known before MLflow has been asked for what it has
        self.open: set[str] = set()
        self.runs: dict[str, str] = {}  # by trial
        self.logged: dict[str, int] = {}  # the last step that a trial's run has, by trial

    @_survives
    def start(self, record: Record) -> None:
        """Make the trial's run, or continue the one that an interruption left."""
        self._opened(record)

    @_survives
    def report(self, record: Record) -> None:
        """Log what the trial reached, unless its run has it."""
        run, step = self._opened(record), record.step
        prob = prob_of(record.values)
        self._log_new_params(
            run,
            {
                "prob": prob if isinstance(prob, float | int) else list(prob),
                **{name: value for name, value in record.values.items() if name == "lr"},
                "seeds": ",".join(map(str, self.seeds)),
                "node": record.node,
            },
        )
        if step <= self.logged.get(record.id, 0):
            return
        values = {
            METRIC: record.mean,
            f"{METRIC}_std": record.std,
            **{f"{METRIC}_seed_{s}": a for s, a in zip(self.seeds, record.accuracies, strict=True)},
        }
        now = get_current_time_millis()
        metrics = [Metric(key, value, now, step) for key, value in values.items() if value is not None]
        self.client.log_batch(run, metrics=metrics)
        self.logged[record.id] = step

    @_survives
    def end(self, record: Record) -> None:
        """FAILED for a trial with a problem, else FINISHED."""
        run = self._opened(record)
        self.client.set_tag(run, "stopped_early", str(record.stopped_early).lower())
        if record.problem:
            self.client.set_tag(run, "problem", record.problem)
        status = RunStatus.FAILED if record.problem else RunStatus.FINISHED
        self.client.set_terminated(run, RunStatus.to_string(status))
        self.open.discard(record.id)

    def interrupt(self, status: str) -> None:
        """The search ends before these trials do."""
        for trial in sorted(self.open):
            self._interrupt_one(trial, status)
        self.open.clear()

    @_survives
    def _interrupt_one(self, trial: str, status: str) -> None:
        self.client.set_terminated(self.runs[trial], status)

    def _known_experiment(self) -> str:
        """The search's experiment, once the runs that an interruption left in it are known."""
        if self.experiment is None:
            experiment = self.client.get_run(self.parent).info.experiment_id
            found = self.client.search_runs([experiment], f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self.parent}'")
            for run in found:
                trial = run.data.tags[TRIAL]
                self.runs[trial] = run.info.run_id
                history = self.client.get_metric_history(run.info.run_id, METRIC)
                self.logged[trial] = max((point.step for point in history), default=0)
            self.experiment = experiment
        return self.experiment

    def _opened(self, record: Record) -> str:
        """The trial's run, which is there and under way."""
        experiment = self._known_experiment()
        if record.id not in self.open:
            if record.id in self.runs:
                self.client.update_run(self.runs[record.id], status=RunStatus.to_string(RunStatus.RUNNING))
            else:
                tags = {MLFLOW_PARENT_RUN_ID: self.parent, TRIAL: record.id}
                run = self.client.create_run(experiment, run_name=record.name, tags=tags)
                self.runs[record.id] = run.info.run_id
            self.open.add(record.id)
        return self.runs[record.id]

    def _log_new_params(self, run: str, values: Mapping[str, Any]) -> None:
        """Params from before an interruption stay, for MLflow refuses changes."""
        logged = self.client.get_run(run).data.params
        params = [Param(key, str(value)) for key, value in values.items() if key not in logged]
        self.client.log_batch(run, params=params)
