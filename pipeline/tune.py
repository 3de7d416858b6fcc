"""Stage `tune`: searches the probability of cross-attention, on the validation split alone.

python -m pipeline.tune

The search keeps its state in work/tune/ until it is done, because DVC deletes a stage's outputs before
it runs; interrupted and started again, it goes on.
"""

import dataclasses
import shutil
from typing import Any

from pipeline.config.params import Params, load_params, settings_kept
from pipeline.config.sections import Range
from pipeline.runtime.boundary import run as run_stage
from pipeline.runtime.code import code_of
from pipeline.runtime.exclusive import exclusive
from pipeline.runtime.files import replace_folder
from pipeline.runtime.paths import BACKBONE, BEST, RUNS
from pipeline.search.progress import SearchProgress
from pipeline.search.space import dimensions, number_of_trials
from pipeline.search.task import Task, decided_by, device_of_trials, plan
from pipeline.tracking.follow import Follower
from pipeline.tracking.labels import flatten, origin
from pipeline.training.cluster import LOCAL, check_one_machine_has, connected, unused_gpus
from pipeline.training.interrupted import DECIDES, why_anew


def search(task: Task, params: Params) -> None:
    """Search, track, put the results in place, and clean up.

    Raises:
        UserError: the cluster can't be reached or can't do it; the settings don't suit the model; or no
            trial came to an end.
    """
    settings = task.tune
    tags = {
        **origin(),
        "backbone_sha256": task.card.weights_sha256,
        "dataset_fingerprint": task.data.fingerprint,
    }
    tracked = (RUNS / f"search-{task.name}", params.tracking.experiment, "search", tags)
    with exclusive("tune"), Follower() as follower:  # which loads MLflow meanwhile
        check(task)
        with connected(settings.address, key="tune.address"), follower.follows(*tracked) as run:
            # Heavy; and Ray reads the environment that connecting gives it when it is imported.
            import ray

            from pipeline.search.actor import run_trials, start_actor
            from pipeline.search.results import write_results

            check_one_machine_has(settings.resources, "tune.resources")
            run.add_params(settings_to_compare(task))
            anew = why_anew(task.folder, task.decides, mark=DECIDES)
            trials = number_of_trials(settings, task.card.blocks)
            progress = SearchProgress(run, trials, task.timetable.steps, settings.seeds, task.metric)
            for note in (unused_gpus(settings.resources, "tune.resources"), anew, *params.notes):
                if note:
                    progress.say(note)
            actor = start_actor(task)
            records = run_trials(actor, task, progress)
            with replace_folder(BEST.parent) as folder:
                found = write_results(folder, task, records)
            reached = found[task.measured]
            known = {f"best_{task.measured}": reached["mean"], f"best_{task.measured}_std": reached["std"]}
            run.log({key: value for key, value in known.items() if value is not None})
            shutil.copytree(BEST.parent, run.artifacts, dirs_exist_ok=True)
            ray.get(actor.remove.remote())
    shutil.rmtree(task.folder, ignore_errors=True)
    spread = "" if reached["std"] is None else f" ± {reached['std']:.3f}"
    what = f"validation {task.metric.title} {reached['mean']:.3f}{spread}"
    progress.say(f"the best is prob {found['prob']}: {what}")
    progress.say(found["against_plain"])


def check(task: Task) -> None:
    """Find what would stop every trial, before any work.

    Raises:
        UserError: as `stochca.training.inputs.check_settings`.
    """
    from pipeline.images.prepared import load_prepared
    from pipeline.training.inputs import make_inputs
    from stochca.training.inputs import check_settings

    card, training = task.card, task.training
    if task.tune.address != LOCAL:  # what this machine computes in says nothing about the others
        training = dataclasses.replace(training, precision="auto")
    spaces = dimensions(task.tune, card.blocks)
    values = {name: space.low if isinstance(space, Range) else space[0] for name, space in spaces.items()}
    classes = load_prepared().classes
    method = task.method(values)
    inputs = make_inputs(
        BACKBONE, classes, [], [], method=method, settings=training, selection=task.selection, seed=0
    )
    check_settings(inputs, device_of_trials(task.tune.resources))


def settings_to_compare(task: Task) -> dict[str, Any]:
    """What searches are compared by in MLflow's UI."""
    unsearched: Any = {"training": True, "method": {"attention": {"prob"}}}  # of which prob says nothing
    return {
        "backbone": task.card.architecture,
        "image_size": task.card.image_size,
        **flatten(task.tune.model_dump(mode="json", exclude=unsearched), "tune."),
        **flatten({**dataclasses.asdict(task.training), "steps": task.timetable.steps}, "training."),
    }


def main() -> None:
    params = load_params()
    with settings_kept(params, decided_by, "the search", *code_of("tune")):
        search(plan(params), params)


if __name__ == "__main__":
    run_stage(main)
