"""Ray Tune's part: Optuna draws the values, ASHA stops what falls behind, and the state survives a kill."""

import json
import warnings
from pathlib import Path
from typing import Any, ClassVar

import optuna
import ray
from optuna.samplers import TPESampler
from ray import tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from pipeline.search.records import REACHED, Records, Rung
from pipeline.search.space import first_points, is_plain, number_of_trials, ray_space, trials_before_learning
from pipeline.search.task import Task
from pipeline.search.trial import EVALUATIONS, Trial


def tuner_of(task: Task, state: Path, sent: list[ray.ObjectRef]) -> tune.Tuner:
    """What runs the trials, or those that an interrupted search has not finished.

    Args:
        state: Ray Tune's folder; where one `is_restorable`, the search goes on.
        sent: the data, for machines that don't have the project's folder.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", module="optuna")
    settings, blocks = task.tune, task.card.blocks
    trials, space = number_of_trials(settings, blocks), ray_space(settings, blocks)
    resources = {"cpu": settings.resources.cpu, "gpu": settings.resources.gpu}
    trainable = tune.with_resources(tune.with_parameters(Trial, task=task, sent=sent), resources)
    if is_restorable(state):
        return tune.Tuner.restore(
            str(state), trainable, resume_unfinished=True, restart_errored=True, param_space=space
        )
    return tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(
                metric=REACHED,
                mode=_mode(task),
                points_to_evaluate=first_points(settings, blocks, task.training.lr),
                sampler=TPESampler(
                    seed=settings.sampler_seed,
                    n_startup_trials=trials_before_learning(trials),
                    constant_liar=True,  # trials that run side by side keep apart
                ),
            ),
            scheduler=Stopper(task),
            num_samples=trials,
            max_concurrent_trials=None if settings.concurrent == "auto" else settings.concurrent,
        ),
        run_config=tune.RunConfig(
            name=state.name,
            storage_path=str(state.parent),
            callbacks=[Recorder()],
            failure_config=tune.FailureConfig(max_failures=settings.max_failures),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # trials keep their own
            verbose=0,
        ),
    )


def is_restorable(state: Path) -> bool:
    """Whether there is a state, and a kill has not cut it off."""
    snapshots = sorted(state.glob("experiment_state-*.json"))
    if not (state / "tuner.pkl").exists() or not snapshots:
        return False
    try:
        json.loads(snapshots[-1].read_text())
    except ValueError:
        return False
    return all(path.read_bytes().endswith(b".") for path in state.glob("*.pkl"))  # as every whole pickle does


class Stopper(ASHAScheduler):
    """ASHA over the rungs of a task, but never for plain fine-tuning, which the best is compared with."""

    def __init__(self, task: Task) -> None:
        super().__init__(
            time_attr=EVALUATIONS,
            metric=REACHED,
            mode=_mode(task),
            max_t=len(task.timetable.evaluations),
            grace_period=task.grace,
            reduction_factor=task.tune.reduction,
        )
        self.task = task

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial from before an interruption: later ones are measured against it as before."""
        super().on_trial_add(tune_controller, trial)
        for rung in (trial.last_result or {}).get("rungs", []):
            evaluations = self.task.evaluations(rung["step"])
            reached = self._metric_op * Rung(**rung).mean  # of which more is better, as of what is reported
            self._trial_info[trial.trial_id].on_result(trial, evaluations, reached)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        action = super().on_trial_result(tune_controller, trial, result)
        return str(TrialScheduler.CONTINUE if is_plain(trial.config) else action)


class Recorder(tune.Callback):
    """Holds nothing itself: Ray Tune keeps it, as it was at the beginning, for a search that goes on."""

    records: ClassVar[Records]  # of the search that this process runs

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.records.started(trial.trial_id, number_of(trial), trial.config)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any
    ) -> None:
        self.records.reported(number_of(trial), result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.records.finished(number_of(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.records.finished(number_of(trial), trial.get_error())


def _mode(task: Task) -> str:
    return "max" if task.metric.higher_is_better else "min"


def number_of(trial: Any) -> int:
    """From Ray Tune's tag of a trial, such as 3_prob=0.2130."""
    return int(trial.experiment_tag.split("_")[0])
