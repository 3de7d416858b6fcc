"""Runs a search from beginning to end, or from where it was interrupted."""

import dataclasses
import os
import shutil
from typing import TYPE_CHECKING, Any

import ray

from pipeline.config.params import Params
from pipeline.config.sections import Range
from pipeline.runtime.exclusive import exclusive
from pipeline.runtime.files import replace_folder
from pipeline.runtime.paths import BACKBONE, BEST, RUNS
from pipeline.search.actor import run_trials, start_actor
from pipeline.search.progress import SearchProgress
from pipeline.search.results import write_results
from pipeline.search.space import dimensions, number_of_trials
from pipeline.search.task import Task
from pipeline.tracking.follow import Follower
from pipeline.tracking.labels import flatten, git_commit
from pipeline.training.cluster import LOCAL, check_one_machine_has, connected

if TYPE_CHECKING:
    from pipeline.search.trial import Trial


def search(task: Task, params: Params, trial: "type[Trial] | None" = None) -> None:
    """Search, track, put the results in place, and clean up.

    Args:
        trial: what Ray Tune runs in place of `Trial`.

    Raises:
        UserError: the cluster can't be reached or can't do it; the settings don't suit the model; or no
            trial came to an end.
    """
    settings = task.tune
    tags = {
        "stage": os.environ.get("DVC_STAGE", "none"),
        "git_commit": git_commit() or "none",
        "backbone_sha256": task.card.weights_sha256,
        "dataset_fingerprint": task.inputs.fingerprint,
    }
    tracked = (RUNS / f"search-{task.name}", params.tracking.experiment, "search", tags)
    with exclusive("tune"), Follower() as follower:  # which loads MLflow meanwhile
        check(task)
        with connected(settings.address, key="tune.address"), follower.follows(*tracked) as run:
            check_one_machine_has(settings.resources, "tune.resources")
            run.add_params(settings_to_compare(task))
            task.folder.mkdir(parents=True, exist_ok=True)
            trials = number_of_trials(settings, task.card.blocks)
            progress = SearchProgress(run, trials, task.training.steps, settings.seeds)
            actor = start_actor(task)
            records = run_trials(actor, task, progress, trial)
            with replace_folder(BEST.parent) as folder:
                found = write_results(folder, task, records)
            accuracy = found["validation_accuracy"]
            known = {
                "best_validation_accuracy": accuracy["mean"],
                "best_validation_accuracy_std": accuracy["std"],
            }
            run.log({key: value for key, value in known.items() if value is not None})
            shutil.copytree(BEST.parent, run.artifacts, dirs_exist_ok=True)
            ray.get(actor.remove.remote())
    shutil.rmtree(task.folder, ignore_errors=True)
    spread = "" if accuracy["std"] is None else f" ± {accuracy['std']:.3f}"
    progress.say(f"the best is prob {found['prob']}: {accuracy['mean']:.3f}{spread} on validation")
    progress.say(found["against_plain"])


def check(task: Task) -> None:
    """Find what would stop every trial, before any work.

    Raises:
        UserError: as `stochca.training.checks.check_settings`.
    """
    import torch

    from pipeline.training.inputs import make_inputs
    from stochca.compute.devices import default_device
    from stochca.training.inputs import check_settings

    card, training = task.card, task.training
    device = default_device() if task.tune.resources.gpu else torch.device("cpu")
    if task.tune.address != LOCAL:  # what this machine computes in says nothing about the others
        training = dataclasses.replace(training, precision="auto")
    spaces = dimensions(task.tune, card.blocks)
    values = {name: space.low if isinstance(space, Range) else space[0] for name, space in spaces.items()}
    inputs = make_inputs(BACKBONE, ["", ""], [], [], method=task.method(values), settings=training, seed=0)
    check_settings(inputs, device)


def settings_to_compare(task: Task) -> dict[str, Any]:
    """What searches are compared by in MLflow's UI."""
    return {
        "backbone": task.card.architecture,
        "image_size": task.card.image_size,
        **flatten(task.tune.model_dump(mode="json", exclude={"training"}), "tune."),
        **flatten(dataclasses.asdict(task.training), "training."),
    }
