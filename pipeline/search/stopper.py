"""Stops trials that fall behind (ASHA), but never plain fine-tuning, which the best is compared with."""

from typing import Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from pipeline.search.records import METRIC
from pipeline.search.space import is_plain
from pipeline.search.task import Task


class Stopper(ASHAScheduler):
    """ASHA over the rungs of a task."""

    def __init__(self, task: Task) -> None:
        super().__init__(
            time_attr="step",
            metric=METRIC,
            mode="max",
            max_t=task.training.steps,
            grace_period=task.tune.grace_steps,
            reduction_factor=task.tune.reduction,
        )

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial from before an interruption: later ones are measured against it as before."""
        super().on_trial_add(tune_controller, trial)
        for rung in (trial.last_result or {}).get("history", []):
            self._trial_info[trial.trial_id].on_result(trial, rung["step"], rung[METRIC])

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        action = super().on_trial_result(tune_controller, trial, result)
        return str(TrialScheduler.CONTINUE if is_plain(trial.config) else action)
