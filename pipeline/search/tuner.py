"""Ray Tune's part: Optuna draws the values, ASHA stops what falls behind, and the state survives a kill."""

import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import optuna
import ray
from optuna.samplers import TPESampler
from ray import tune
from ray.tune.search.optuna import OptunaSearch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.search.beside_tune import beside_tune
from pipeline.search.inputs import LARGEST_SHIPPED, scratch
from pipeline.search.messenger import Messenger
from pipeline.search.progress import SearchProgress
from pipeline.search.records import METRIC
from pipeline.search.space import first_points, random_draws, ray_space
from pipeline.search.stopper import Stopper
from pipeline.search.task import Task
from pipeline.search.trial import Trial
from pipeline.training.cluster import LOCAL
from stochca.errors import UserError

STATE = "ray"  # Ray Tune's folder inside the search's


def run_trials(
    task: Task, trials: int, mailbox: str, progress: SearchProgress, trial: type[Trial]
) -> Iterable[Any]:
    """Run the trials, or those that an interrupted search has not finished; gives Ray Tune's results of all.

    Raises:
        UserError: the data is too large to be sent to machines that don't have it.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", module="optuna")
    settings = task.tune
    space = ray_space(settings, task.card.blocks)
    resources = {"cpu": settings.resources.cpu, "gpu": settings.resources.gpu}
    trainable = tune.with_resources(tune.with_parameters(trial, task=task, sent=_sent(task)), resources)
    state = beside_tune(search_folder, task) / STATE
    if beside_tune(is_restorable, state):
        progress.say(
            "continues the search that was interrupted, with the concurrent and max_failures of its beginning"
        )
        tuner = tune.Tuner.restore(
            str(state), trainable, resume_unfinished=True, restart_errored=True, param_space=space
        )
    else:
        tuner = tune.Tuner(
            trainable,
            param_space=space,
            tune_config=tune.TuneConfig(
                search_alg=OptunaSearch(
                    metric=METRIC,
                    mode="max",
                    points_to_evaluate=first_points(settings, task.card.blocks, task.training.lr),
                    sampler=TPESampler(
                        seed=settings.sampler_seed,
                        n_startup_trials=random_draws(trials),
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
                callbacks=[Messenger(mailbox)],
                failure_config=tune.FailureConfig(max_failures=settings.max_failures),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # trials keep their own
                verbose=0,
            ),
        )
    return tuner.fit()


def search_folder(task: Task) -> Path:
    """The search's folder, or what stands for it on a machine that does not have the project."""
    return task.folder if task.folder.exists() else scratch() / task.name


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


def _sent(task: Task) -> list[ray.ObjectRef]:
    """The data in Ray's object store, for machines that don't have the project's folder."""
    if task.tune.address == LOCAL:
        return []
    size = task.inputs.size()
    if size <= LARGEST_SHIPPED:
        return [ray.put(task.inputs.packed())]
    for node in ray.nodes():
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        looks = ray.remote(num_cpus=0, scheduling_strategy=there)(task.inputs.are_in)
        if node["Alive"] and not ray.get(looks.remote(task.inputs.project)):
            raise UserError(
                f"the images and the backbone take {size / 2**30:.1f} GiB, too much to be sent to "
                f"{node['NodeManagerHostname']}, which does not have {task.inputs.project}; mount that "
                "folder on all machines of the cluster"
            )
    return []
