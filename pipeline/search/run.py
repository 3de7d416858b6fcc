"""Runs a search from beginning to end, or from where it was interrupted."""

import dataclasses
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.config.params import Params
from pipeline.config.sections import Range, Tune
from pipeline.config.tuned import BEST
from pipeline.runtime.exclusive import exclusive
from pipeline.runtime.files import replace_folder
from pipeline.search.beside_tune import beside_tune
from pipeline.search.children import Children
from pipeline.search.inputs import BACKBONE
from pipeline.search.journal import Journal
from pipeline.search.messenger import open_mailbox
from pipeline.search.progress import SearchProgress
from pipeline.search.results import write_results
from pipeline.search.space import dimensions, number_of_trials
from pipeline.search.task import Task
from pipeline.search.trial import Trial
from pipeline.search.tuner import run_trials, search_folder
from pipeline.tracking.labels import flatten, git_commit
from pipeline.tracking.outbox import Outbox
from pipeline.tracking.tracked_run import tracked_run
from pipeline.training.cluster import LOCAL, check_one_machine_has, connected


def search(task: Task, params: Params, trial: type[Trial] = Trial) -> None:
    """Search, track, put the results in place, and clean up.

    Args:
        trial: what Ray Tune runs.

    Raises:
        UserError: the cluster can't be reached or can't do it; the settings don't suit the model; or no
            trial came to an end.
    """
    check(task)
    settings = task.tune
    trials = number_of_trials(settings, task.card.blocks)
    progress = SearchProgress(trials, task.training.steps, len(settings.seeds))
    tags = {
        "stage": os.environ.get("DVC_STAGE", "none"),
        "git_commit": git_commit() or "none",
        "backbone_sha256": task.card.weights_sha256,
        "dataset_fingerprint": task.inputs.fingerprint,
    }
    with (
        exclusive("tune"),
        _ray(settings),
        tracked_run(params.tracking.experiment, "search", tags, task.folder / "mlflow_run_id") as outbox,
    ):
        outbox.add_params(settings_to_compare(task))
        outbox.send()
        children = Children(outbox.run_id, settings.seeds)
        journal = Journal(task.folder, task.training.steps, progress, children)
        name = f"mailbox-{task.name}"
        with journal.reads(open_mailbox(name)):
            results = run_trials(task, trials, name, progress, trial)
        records = journal.complete(results)
        with replace_folder(BEST.parent) as folder:
            found = write_results(folder, task, records)
        _log_results(outbox, found)
        beside_tune(shutil.rmtree, beside_tune(search_folder, task))
    shutil.rmtree(task.folder, ignore_errors=True)
    accuracy = found["validation_accuracy"]
    spread = "" if accuracy["std"] is None else f" ± {accuracy['std']:.3f}"
    progress.say(f"the best is prob {found['prob']}: {accuracy['mean']:.3f}{spread} on validation")
    progress.say(found["against_plain"])


@contextmanager
def _ray(settings: Tune) -> Iterator[None]:
    with connected(settings.address, key="tune.address"):
        check_one_machine_has(settings.resources, "tune.resources")
        yield


def check(task: Task) -> None:
    """Find what would stop every trial, before any work.

    Raises:
        UserError: as `stochca.training.fit.check_settings`.
    """
    import torch

    from stochca.backbones.loading import load_backbone, load_source_head
    from stochca.compute.devices import default_device
    from stochca.data.preprocessing import Preprocessing
    from stochca.training.fit import check_settings

    card, training = task.card, task.training
    device = default_device() if task.tune.resources.gpu else torch.device("cpu")
    if task.tune.address != LOCAL:  # what this machine computes in says nothing about the others
        training = dataclasses.replace(training, precision="auto")
    spaces = dimensions(task.tune, card.blocks)
    values = {name: space.low if isinstance(space, Range) else space[0] for name, space in spaces.items()}
    student = load_backbone(BACKBONE, num_classes=2, drop_path=training.drop_path)
    preprocessing = Preprocessing.of(card)
    source_head = load_source_head(BACKBONE)
    check_settings(student, task.method(values), training, preprocessing, device, source_head)


def settings_to_compare(task: Task) -> dict[str, Any]:
    """What searches are compared by in MLflow's UI."""
    return {
        "backbone": task.card.architecture,
        "image_size": task.card.image_size,
        **flatten(task.tune.model_dump(mode="json", exclude={"training"}), "tune."),
        **flatten(dataclasses.asdict(task.training), "training."),
    }


def _log_results(outbox: Outbox, found: dict[str, Any]) -> None:
    accuracy = found["validation_accuracy"]
    metrics = {"best_validation_accuracy": accuracy["mean"], "best_validation_accuracy_std": accuracy["std"]}
    outbox.add_metrics({key: value for key, value in metrics.items() if value is not None})
    shutil.copytree(BEST.parent, outbox.artifacts, dirs_exist_ok=True)
    outbox.send()
