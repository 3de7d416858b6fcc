"""Trains one model on several workers with Ray Train, which starts them and replaces those that are lost.

The driver, which is the stage, keeps what there is one of: the MLflow run, the terminal, the test split.
Workers share its folder. Rank 0 sends what happens to the driver and leaves the weights in the run's folder.
"""

import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.sections import Workers
from pipeline.training.cluster import check_one_machine_has, connected, unused_gpus
from stochca.errors import UserError
from stochca.training.callbacks import Callback, Callbacks, JsonLines

if TYPE_CHECKING:
    from pipeline.training.job import Job
    from stochca._typing import TimmModule
    from stochca.phases.first_phase import ClassTexts
    from stochca.training.fit import Fitted

WEIGHTS = "fitted.safetensors"  # in the run's folder, as the next
RESULTS = "ray"
SECONDS_BETWEEN_READS = 0.2
MISTAKE, FITTED = "mistake", "fitted"  # what a worker sends beside the calls of a callback


@dataclass(frozen=True)
class Assignment:
    """What every worker is told."""

    project: Path  # absolute, and the same on every machine
    run_folder: Path  # likewise
    job: "Job"
    class_texts: "ClassTexts | None"
    versions: dict[str, str]  # of the driver's libraries, which workers have to have


def fit_on_workers(
    assignment: Assignment, workers: Workers, student: "TimmModule", callbacks: Sequence[Callback]
) -> "Fitted":
    """As `stochca.training.fit.fit`, on `workers.num_workers` workers.

    Where a worker was lost, `callbacks` hear of another start, from the last checkpoint.

    Raises:
        UserError: as `fit`; or there is no Ray at the address.
    """
    each = workers.resources_per_worker
    with connected(workers.address, key="workers.address", cpus=workers.num_workers * each.cpu):
        check_one_machine_has(each, "workers.resources_per_worker")
        listeners = Callbacks(callbacks)
        check_gpus(workers, listeners)
        fitted = _run(assignment, workers, listeners)
    return dataclasses.replace(fitted, model=fitted_model(assignment, student))


def fitted_model(assignment: Assignment, student: "TimmModule") -> "TimmModule":
    """The model whose weights rank 0 has left, on the device of this machine, as `fit` leaves it."""
    from safetensors.torch import load_file

    from stochca.compute.devices import default_device
    from stochca.training.composition import kept_model

    model = kept_model(assignment.job.method, student)
    model.load_state_dict(load_file(assignment.run_folder / WEIGHTS))
    return model.requires_grad_(True).eval().to(default_device())


def check_gpus(workers: Workers, listeners: Callbacks) -> None:
    """Refuse to wait for GPUs that are not there, and say so where those that are there are not used."""
    import ray

    needed = workers.num_workers * workers.resources_per_worker.gpu
    found = ray.cluster_resources().get("GPU", 0)
    if needed > found:
        raise UserError(
            f"workers.num_workers {workers.num_workers} need {needed:g} GPUs, but at workers.address "
            f"{workers.address} there are {found:g}; ask for fewer, or give the address of a larger cluster"
        )
    if note := unused_gpus(workers.resources_per_worker, "workers.resources_per_worker"):
        listeners.on_note(note)


def _run(assignment: Assignment, workers: Workers, listeners: Callbacks) -> "Fitted":
    """Let Ray Train run, and pass on what rank 0 reports until it is through.

    Ray Train's own callbacks run in its controller, another process, and after all workers have waited for
    each other; a queue gets here without.
    """
    import ray
    from ray.util.queue import Queue

    events = Queue(actor_options={"num_cpus": 0})
    # As a task, because trainer.fit() would take Ctrl-C for itself and keep this process from all else.
    running = ray.remote(num_cpus=0, max_retries=0)(_train).remote(assignment, workers, events)
    fitted: Fitted | None = None
    starts = 0
    try:
        through = False
        while not through:
            time.sleep(SECONDS_BETWEEN_READS)
            through = bool(ray.wait([running], timeout=0)[0])
            for event, arguments in events.get_nowait_batch(events.qsize()):
                if event == MISTAKE:
                    raise UserError(*arguments)
                if event == FITTED:
                    (fitted,) = arguments
                    continue
                if event == "on_start":
                    starts += 1
                    if starts > 1:
                        listeners.on_note("a worker was lost; training starts again from the last checkpoint")
                listeners.hand_on(event, *arguments)
        ray.get(running)
    finally:
        listeners.on_end()
    assert fitted is not None
    return fitted


class _Sent(Callback):
    """On rank 0: sends everything to the driver, but the end, which the driver sees by itself."""

    def __init__(self, events: Any) -> None:
        self.events = events

    def hand_on(self, event: str, *arguments: Any) -> None:
        if event != "on_end":
            self.events.put((event, arguments))


def _train(assignment: Assignment, workers: Workers, events: Any) -> None:
    """Start the workers and wait for them; runs in Ray."""
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    each = workers.resources_per_worker
    TorchTrainer(
        _work,
        train_loop_config={"assignment": assignment, "events": events},
        scaling_config=ScalingConfig(
            num_workers=workers.num_workers,
            use_gpu=each.gpu > 0,
            resources_per_worker={"CPU": each.cpu} | ({"GPU": each.gpu} if each.gpu else {}),
        ),
        run_config=RunConfig(
            name=RESULTS,
            storage_path=str(assignment.run_folder),
            failure_config=FailureConfig(max_failures=workers.max_failures),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    ).fit()


def _work(config: dict[str, Any]) -> None:
    """What each worker does; torch.distributed is set up by Ray Train."""
    from pipeline.training.digests import check_versions

    assignment, events = config["assignment"], config["events"]
    os.chdir(assignment.project)
    try:
        check_versions(assignment.versions)  # before they are imported, which may fail
        fitted = _fit(assignment, events)
    except UserError as error:
        # From every rank, for the others may be waiting for one that alone has found a damaged image.
        events.put((MISTAKE, (str(error),)))
        return  # to raise it would make Ray Train try again
    from stochca.compute.checkpoint import save_weights
    from stochca.compute.distributed import is_main

    if is_main():
        save_weights(assignment.run_folder / WEIGHTS, fitted.model.state_dict())
        events.put((FITTED, (dataclasses.replace(fitted, model=None),)))


def _fit(assignment: Assignment, events: Any) -> "Fitted":
    """The share of the training of this worker's rank."""
    import torch
    from ray.train.torch import get_device

    from pipeline.training.inputs import load_job
    from pipeline.training.job import LOG
    from stochca.compute.cores import cores_of_process
    from stochca.training.fit import fit

    torch.set_num_threads(cores_of_process())
    return fit(
        load_job(assignment.job, assignment.class_texts).inputs,
        work_folder=assignment.run_folder,
        keep_evaluated=assignment.job.protocol.keep_evaluated,
        # The log lies beside the checkpoints, and is ahead of them whatever happens to the driver.
        callbacks=[JsonLines(assignment.run_folder / LOG), _Sent(events)],
        device=get_device(),
    )
