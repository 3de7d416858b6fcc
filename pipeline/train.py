"""Trains one model: `python -m pipeline.train METHOD TARGET SEED`.

The stages baseline, stochca and combined all run this; a method is looked up by its name in
params.yaml. Checkpoints live in work/, named after everything that decides the result, because DVC
deletes a stage's outputs before it runs; the results are moved into place at the very end.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from pipeline.config.params import Params, load_params, settings_kept
from pipeline.runtime.boundary import run
from pipeline.runtime.code import code_of
from pipeline.runtime.exclusive import exclusive
from pipeline.runtime.startup import importing, leave
from pipeline.tracking.follow import Follower
from pipeline.tracking.labels import origin
from pipeline.training.cluster import LOCAL
from pipeline.training.job import (
    LOG,
    Job,
    all_that_decides,
    plan,
    settings_to_compare,
    work_folder,
)


def train(job: Job, params: Params) -> None:
    """Train, read the test split once, track, and put the results in place."""
    with Follower() as follower:  # it loads MLflow meanwhile
        _train(job, params, follower)


def _train(job: Job, params: Params, follower: Follower) -> None:
    # Heavy, and not needed to find a mistake in params.yaml.
    with importing():
        import torch

        from pipeline.training.inputs import decoders_sha256, load_job
        from pipeline.training.interrupted import why_anew, why_timed_anew
        from pipeline.training.outcome import Outcome
        from pipeline.training.progress import TrainingProgress
        from pipeline.training.workers import Assignment, fit_on_workers
        from stochca.compute.checkpoint import PREVIOUS
        from stochca.compute.devices import default_device, device_name
        from stochca.compute.precision import resolve_precision
        from stochca.config import build
        from stochca.training.callbacks import JsonLines, read_events
        from stochca.training.fit import find_evaluated, fit
        from stochca.training.inputs import check_settings

    loaded = load_job(job)
    notes = [*params.notes_on_tuned(job.method_name), *loaded.images.notes]
    card, prepared, inputs = loaded.card, loaded.prepared, loaded.inputs
    workers = params.workers
    here = workers.num_workers == 1 or workers.address == LOCAL  # else what this machine has says little
    device = torch.device("cpu") if workers.on_cpus else default_device()
    if here or workers.on_cpus:
        check_settings(inputs, device)
    else:
        settings = dataclasses.replace(inputs.settings, precision="auto")
        check_settings(dataclasses.replace(inputs, settings=settings), device)
    precision = resolve_precision(job.training.precision, device) if here else job.training.precision
    backbone = card.to_dict() | {"decoders_sha256": decoders_sha256(job.method, card)}
    decides = all_that_decides(
        job,
        inputs.timetable,
        backbone,
        prepared.fingerprint,
        precision,
        "cuda" if workers.on_gpus else device.type,
        classes=prepared.classes,
        teacher=loaded.teacher.to_dict() if loaded.teacher else None,
        teacher_precision=build(job.method.attention).teacher_precision(precision, device) if here else None,
    )
    folder = work_folder(job, decides)
    tags = {
        **origin(),
        "backbone_sha256": card.weights_sha256,
        "dataset_fingerprint": prepared.fingerprint,
        "num_workers": str(workers.num_workers),
        "training.workers": str(job.training.workers),
    }
    if here:  # else known when it is through
        tags |= {"device": device_name(device), "precision": precision}
    if reason := why_timed_anew(folder, tags):
        print(f"{job.name}: {reason}", flush=True)
    with (
        exclusive(job.name),  # whose outputs one of other settings would write as well
        follower.follows(
            folder, params.tracking.experiment, job.name, tags, uploads_model=params.tracking.log_model
        ) as run,
    ):
        run.add_params(settings_to_compare(job, inputs.timetable, card, prepared.manifest))
        if reason := why_anew(folder, decides):
            print(f"{job.name}: {reason}", flush=True)
        if workers.num_workers > 1:
            fitted = fit_on_workers(
                Assignment(Path.cwd(), folder.resolve(), job, inputs.class_texts, decides["versions"]),
                workers,
                inputs.student,
                [TrainingProgress(job.name)],
            )
        else:
            fitted = fit(
                inputs,
                work_folder=folder,
                keep_evaluated=job.protocol.keep_evaluated,
                callbacks=[JsonLines(folder / LOG), TrainingProgress(job.name)],
                device=device,
            )
        run.add_tags({"device": fitted.device, "precision": fitted.precision})
        fitted = dataclasses.replace(fitted, notes=[*notes, *fitted.notes])
        evaluated = find_evaluated(folder)
        outcome = Outcome(job, loaded, fitted, evaluated, run.run_id, tags, decides["versions"])
        events = read_events(folder / LOG)
        outcome.write(events)
        outcome.hand_over(run, events[-1]["step"], upload_model=params.tracking.log_model)
        (folder / PREVIOUS).unlink(missing_ok=True)  # the last one does, should DVC ask again


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.train", description=__doc__)
    parser.add_argument("method", help="a name under methods: in params.yaml")
    parser.add_argument(
        "target",
        help="one of protocol.targets: all, a percentage of the training images, or the held-out domain",
    )
    parser.add_argument(
        "seed",
        type=int,
        help="of the head, the draws, the order of the images and, with a held-out domain, the splits",
    )
    arguments = parser.parse_args()
    params = load_params()
    job = plan(params, arguments.method, arguments.target, arguments.seed)

    def decides(settings: Params) -> dict[str, Any]:
        return plan(settings, arguments.method, arguments.target, arguments.seed).decides

    with settings_kept(params, decides, job.name, *code_of("train")):
        train(job, params)


if __name__ == "__main__":
    run(main)
    leave()
