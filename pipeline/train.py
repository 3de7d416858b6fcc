"""Trains one model: `python -m pipeline.train METHOD TARGET SEED`.

The stages baseline, stochca and combined all run this; a method is looked up by its name in
params.yaml. Checkpoints live in work/, named after everything that decides the result, because DVC
deletes a stage's outputs before it runs; the results are moved into place at the very end.
"""

import argparse
import dataclasses
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.params import Params, load_params
from pipeline.config.settings_kept import settings_kept
from pipeline.runtime.boundary import run
from pipeline.runtime.exclusive import exclusive
from pipeline.runtime.paths import BACKBONE
from pipeline.runtime.startup import importing, leave
from pipeline.tracking.courier import Courier
from pipeline.tracking.labels import git_commit
from pipeline.training.job import LOG, Job, plan, settings_to_compare, work_folder

if TYPE_CHECKING:
    pass


def train(job: Job, params: Params) -> None:
    """Train, look at the test split once, track, and put the results in place."""
    with Courier() as courier:  # it loads MLflow meanwhile
        _train(job, params, courier)


def _train(job: Job, params: Params, courier: Courier) -> None:
    # Heavy, and not needed to find a mistake in params.yaml.
    with importing():
        from pipeline.images.prepared import load_prepared
        from pipeline.images.protocol import images_for
        from pipeline.tracking.callback import MlflowCallback
        from pipeline.training.class_texts import class_texts_of
        from pipeline.training.decoders import decoders_sha256
        from pipeline.training.outcome import Outcome
        from pipeline.training.progress import TrainingProgress
        from pipeline.training.teacher import load_teacher, teacher_card
        from pipeline.training.workers import Assignment, fit_on_workers
        from stochca.backbones.card import BackboneCard
        from stochca.backbones.loading import load_backbone, load_source_head
        from stochca.compute.devices import default_device, device_name
        from stochca.compute.precision import resolve_precision
        from stochca.data.preprocessing import Preprocessing
        from stochca.training.callbacks import JsonLines, read_events
        from stochca.training.composition import teacher_precision
        from stochca.training.evaluated import find_evaluated
        from stochca.training.fit import check_settings, fit

    prepared = load_prepared()
    card = BackboneCard.from_file(BACKBONE / "card.json")
    student = load_backbone(
        BACKBONE, num_classes=len(prepared.classes), drop_path=job.training.drop_path, seed=job.seed
    )
    images = images_for(prepared, job.protocol.name, job.target, job.seed)
    domains = images.balanced_domains(job.protocol.refit)
    preprocessing = Preprocessing.of(card)
    source_head = load_source_head(BACKBONE)
    teaching = teacher_card(job.method, BACKBONE)
    teacher = load_teacher(job.method, BACKBONE, preprocessing)
    class_texts = class_texts_of(job.method, prepared.classes, BACKBONE)
    device = default_device()
    check_settings(
        student,
        job.method,
        job.training,
        preprocessing,
        device,
        source_head,
        teacher=teacher,
        class_texts=class_texts,
        domains=domains,
        refit=job.protocol.refit,
    )
    precision = resolve_precision(job.training.precision, device)
    backbone = card.to_dict() | {"decoders_sha256": decoders_sha256(job.method, card)}
    folder = work_folder(
        job,
        backbone,
        prepared.fingerprint,
        precision,
        device.type,
        teaching.to_dict() if teaching else None,
        teacher_precision(job.method.attention, precision, device),
    )
    tags = {
        "stage": os.environ.get("DVC_STAGE", "none"),
        "git_commit": git_commit() or "none",
        "backbone_sha256": card.weights_sha256,
        "dataset_fingerprint": prepared.fingerprint,
        "num_workers": str(params.workers.num_workers),
    }
    if params.workers.num_workers == 1 or params.workers.address == "local":  # else known when it is through
        tags |= {"device": device_name(device), "precision": precision}
    with (
        exclusive(folder.name),
        courier.tracked_run(params.tracking.experiment, job.name, tags, folder / "mlflow_run_id") as outbox,
    ):
        outbox.add_params(settings_to_compare(job, card, prepared.manifest))
        outbox.send()
        if params.workers.num_workers > 1:
            fitted = fit_on_workers(
                Assignment(Path.cwd(), BACKBONE, folder.resolve(), LOG, job, class_texts),
                params.workers,
                student,
                lambda: [TrainingProgress(job.name), MlflowCallback(outbox)],
            )
        else:
            fitted = fit(
                student,
                images.train,
                images.validation,
                method=job.method,
                settings=job.training,
                preprocessing=preprocessing,
                source_head=source_head,
                teacher=teacher,
                class_texts=class_texts,
                domains=domains,
                refit=job.protocol.refit,
                seed=job.seed,
                work_folder=folder,
                keep_evaluated=job.protocol.keep_evaluated,
                # The terminal comes before the network, which may fail or make one wait.
                callbacks=[JsonLines(folder / LOG), TrainingProgress(job.name), MlflowCallback(outbox)],
                device=device,
            )
        outbox.add_tags({"device": fitted.device, "precision": fitted.precision})
        fitted = dataclasses.replace(fitted, notes=[*images.notes, *fitted.notes])
        looks = find_evaluated(folder)
        outcome = Outcome(
            job,
            card,
            prepared,
            images,
            preprocessing,
            fitted.model,
            fitted,
            looks,
            outbox.run_id,
            tags,
            teaching,
        )
        outcome.write(read_events(folder / LOG))
        outcome.log_to_mlflow(outbox, read_events(folder / LOG), upload_model=params.tracking.log_model)
    shutil.rmtree(folder)


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

    with settings_kept(params, decides, job.name):
        train(job, params)


if __name__ == "__main__":
    run(main)
    leave()
