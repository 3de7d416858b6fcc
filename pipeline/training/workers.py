"""Trains one model on several workers with Ray Train, which starts them and replaces those that are lost.

The driver, which is the stage, keeps what there is one of: the MLflow run, the terminal, the test split.
Workers share its folder. Rank 0 sends what happens to the driver and leaves the weights in the run's folder.
"""

import dataclasses
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.sections import Workers
from pipeline.runtime.files import write_json
from pipeline.training.cluster import check_one_machine_has, connected
from stochca.errors import UserError
from stochca.training.callbacks import Callback, Callbacks, EvalEvent, JsonLines, StepEvent

if TYPE_CHECKING:
    from pipeline.training.job import Job
    from stochca._typing import TimmModule
    from stochca.phases.zero_shot import ClassTexts
    from stochca.training.fit import Fitted

WEIGHTS = "fitted.safetensors"
FITTED = "fitted.json"
RESULTS = "ray"  # in the run's folder
SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(frozen=True)
class Assignment:
    """What every worker is told."""

    project: Path  # absolute, and the same on every machine
    backbone: Path  # a folder in it
    run_folder: Path  # absolute
    log: str  # the name of a file in it
    job: "Job"
    class_texts: "ClassTexts | None"


def fit_on_workers(
    assignment: Assignment,
    workers: Workers,
    student: "TimmModule",
    make_callbacks: Callable[[], Sequence[Callback]],
) -> "Fitted":
    """As `stochca.training.fit.fit`, on `workers.num_workers` workers.

    `make_callbacks` is called once per start, as workers that were lost start again from a checkpoint.

    Raises:
        UserError: as `fit`; or there is no Ray at the address.
    """
    from safetensors.torch import load_file

    from stochca.evaluation import Scores
    from stochca.training.composition import kept_model
    from stochca.training.fit import Fitted

    each = workers.resources_per_worker
    with connected(workers.address, key="workers.address", cpus=workers.num_workers * each.cpu):
        check_one_machine_has(each, "workers.resources_per_worker")
        _check_gpus(workers)
        _run(assignment, workers, _Relayed(make_callbacks))
    model = kept_model(assignment.job.method, student)
    model.load_state_dict(load_file(assignment.run_folder / WEIGHTS))
    model.requires_grad_(True).eval()
    values = json.loads((assignment.run_folder / FITTED).read_text())
    validation = values.pop("validation")
    return Fitted(
        **{**values, "model": model}, validation=None if validation is None else Scores(**validation)
    )


def _check_gpus(workers: Workers) -> None:
    import ray

    needed = workers.num_workers * workers.resources_per_worker.gpu
    found = ray.cluster_resources().get("GPU", 0)
    if needed > found:
        raise UserError(
            f"workers.num_workers {workers.num_workers} need {needed:g} GPUs, but at workers.address "
            f"{workers.address} there are {found:g}; ask for fewer, or give the address of a larger cluster"
        )


def _run(assignment: Assignment, workers: Workers, relayed: "_Relayed") -> None:
    """Let Ray Train run, and pass on what rank 0 reports until it is through."""
    import ray
    from ray.util.queue import Empty, Queue

    events = Queue(actor_options={"num_cpus": 0})
    # As a task, because trainer.fit() would take Ctrl-C for itself and keep this process from all else.
    running = ray.remote(num_cpus=0, max_retries=0)(_train).remote(assignment, workers, events)
    try:
        through = False
        while not through:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            through = bool(ray.wait([running], timeout=0)[0])
            while True:
                try:
                    relayed.receive(*events.get_nowait())
                except Empty:
                    break
        ray.get(running)
    finally:
        relayed.listeners.on_end()


class _Relayed:
    """On the driver: calls the callbacks as rank 0 calls its own."""

    def __init__(self, make_callbacks: Callable[[], Sequence[Callback]]) -> None:
        self.make_callbacks = make_callbacks
        self.listeners = Callbacks(())
        self.starts = 0

    def receive(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "mistake":
            raise UserError(*arguments)
        if event == "on_start":
            self.listeners.on_end()
            self.listeners = Callbacks(self.make_callbacks())
            self.starts += 1
            if self.starts > 1:
                self.listeners.on_note("a worker was lost; training starts again from the last checkpoint")
        getattr(self.listeners, event)(*arguments)


class _Reports(Callback):
    """On rank 0: sends everything to the driver, but the end, which the driver sees by itself."""

    def __init__(self, events: Any) -> None:
        self.events = events

    def on_start(self, first_step: int, steps: int) -> None:
        self._send("on_start", first_step, steps)

    def on_step(self, event: StepEvent) -> None:
        self._send("on_step", event)

    def on_eval(self, event: EvalEvent) -> None:
        self._send("on_eval", event)

    def on_checkpoint(self, path: Path, step: int) -> None:
        self._send("on_checkpoint", path, step)

    def on_note(self, note: str) -> None:
        self._send("on_note", note)

    def _send(self, event: str, *arguments: Any) -> None:
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
    import torch
    from ray.train.torch import get_device

    from pipeline.images.prepared import load_prepared
    from pipeline.images.protocol import images_for
    from pipeline.training.teacher import load_teacher
    from stochca.backbones.card import BackboneCard
    from stochca.backbones.loading import load_backbone, load_source_head
    from stochca.compute.checkpoint import save_weights
    from stochca.compute.cores import cores_of_process
    from stochca.compute.distributed import is_main
    from stochca.data.preprocessing import Preprocessing
    from stochca.training.fit import fit

    assignment, events = config["assignment"], config["events"]
    job = assignment.job
    torch.set_num_threads(cores_of_process())
    os.chdir(assignment.project)
    prepared = load_prepared()
    images = images_for(prepared, job.protocol.name, job.target, job.seed)
    card = BackboneCard.from_file(assignment.backbone / "card.json")
    student = load_backbone(
        assignment.backbone,
        num_classes=len(prepared.classes),
        drop_path=job.training.drop_path,
        seed=job.seed,
    )
    try:
        fitted = fit(
            student,
            images.train,
            images.validation,
            method=job.method,
            settings=job.training,
            preprocessing=Preprocessing.of(card),
            source_head=load_source_head(assignment.backbone),
            teacher=load_teacher(job.method, assignment.backbone, Preprocessing.of(card)),
            class_texts=assignment.class_texts,
            domains=images.balanced_domains(job.protocol.refit),
            refit=job.protocol.refit,
            seed=job.seed,
            keep_evaluated=job.protocol.keep_evaluated,
            work_folder=assignment.run_folder,
            # The log lies beside the checkpoints, and is ahead of them whatever happens to the driver.
            callbacks=[JsonLines(assignment.run_folder / assignment.log), _Reports(events)],
            device=get_device(),
        )
    except UserError as error:
        # From every rank, for the others may be waiting for one that alone has found a damaged image.
        events.put(("mistake", (str(error),)))
        return  # to raise it would make Ray Train try again
    if is_main():
        save_weights(assignment.run_folder / WEIGHTS, fitted.model.state_dict())
        without_model = dataclasses.replace(fitted, model=None)
        write_json(assignment.run_folder / FITTED, dataclasses.asdict(without_model))
