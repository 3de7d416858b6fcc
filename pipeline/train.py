"""Trains one model: `python -m pipeline.train METHOD TARGET SEED`.

The stages baseline, stochca and combined all run this; a method is looked up by its name in
params.yaml. Checkpoints live in work/, named after everything that decides the result, because DVC
deletes a stage's outputs before it runs; the results are moved into place at the very end.
"""

import argparse
import dataclasses
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.boundary import run
from pipeline.courier import Courier
from pipeline.digests import IMAGES, LIBRARY, code_sha256, digest_of
from pipeline.exclusive import exclusive
from pipeline.extensions import FOLDER as EXTENSIONS
from pipeline.params import Params, load_params
from pipeline.run_labels import flatten, git_commit
from pipeline.sections import SEED_LIMIT, Protocol
from pipeline.settings_kept import settings_kept
from pipeline.startup import importing, leave
from pipeline.tuned import is_tuned, read_best, resolved
from stochca.errors import UserError
from stochca.methods import Method
from stochca.settings import Training

if TYPE_CHECKING:
    from stochca.backbone_card import BackboneCard

WORK = Path("work")
BACKBONE = Path("data/backbone")
LOG = "log.jsonl"


@dataclass(frozen=True)
class Job:
    """What one training run is asked to do."""

    method_name: str
    target: str
    seed: int
    method: Method
    training: Training
    protocol: Protocol

    @property
    def name(self) -> str:
        return f"{self.method_name}-{self.target}-{self.seed}"

    @property
    def decides(self) -> dict[str, Any]:
        """What of params.yaml decides the weights."""
        return {
            "method": dataclasses.asdict(self.method),
            "training": dataclasses.asdict(self.training),
            "protocol": [self.protocol.name, self.protocol.oracle, self.protocol.refit],
            "target": self.target,
            "seed": self.seed,
        }


def plan(params: Params, method: str, target: str, seed: int) -> Job:
    """Look the method up.

    Raises:
        UserError: params.yaml defines no such method, or the protocol has no such target, or the seed is
            out of range, or the method is tuned and there is no result of the search.
    """
    if method not in params.methods:
        raise UserError(f"params.yaml defines no method {method!r}; defined are {', '.join(params.methods)}")
    if target not in params.protocol.targets:
        allowed = ", ".join(params.protocol.targets)
        raise UserError(f"protocol.targets in params.yaml has no target {target!r}; it has {allowed}")
    if not 0 <= seed < SEED_LIMIT:
        raise UserError(f"the seed must be at least 0 and below 2**63, found {seed}")
    chosen = params.methods[method]
    if is_tuned(chosen):
        chosen = resolved(chosen, read_best())
    training = params.training_with(chosen.training)
    return Job(method, target, seed, chosen, training, params.protocol)


def work_folder(
    job: Job,
    backbone: dict[str, Any],
    dataset_fingerprint: str,
    precision: str,
    device_type: str,
    teacher: dict[str, Any] | None = None,
    teacher_precision: str | None = None,
) -> Path:
    """Where checkpoints go: a folder named after all that decides the weights, the code included."""
    decides = {
        **job.decides,
        "teacher": teacher,
        "backbone": backbone,  # the whole card: pooling and normalisation decide as much as the weights
        "dataset": dataset_fingerprint,
        "precision": [precision, teacher_precision],
        "device": device_type,
        "code": code_sha256(LIBRARY, *IMAGES, Path(EXTENSIONS)),
    }
    return WORK / f"{job.name}-{digest_of(decides)}"


def train(job: Job, params: Params) -> None:
    """Train, look at the test split once, track, and put the results in place."""
    with Courier() as courier:  # it loads MLflow meanwhile
        _train(job, params, courier)


def _train(job: Job, params: Params, courier: Courier) -> None:
    # Heavy, and not needed to find a mistake in params.yaml.
    with importing():
        from pipeline.class_texts import class_texts_of
        from pipeline.data_parallel import Assignment, fit_on_workers
        from pipeline.decoders import decoders_sha256
        from pipeline.outcome import Outcome
        from pipeline.prepared import load_prepared
        from pipeline.protocol import images_for
        from pipeline.teacher import load_teacher, teacher_card
        from pipeline.tracking_callback import MlflowCallback
        from pipeline.training_progress import TrainingProgress
        from stochca.backbone_card import BackboneCard
        from stochca.backbones import load_backbone, load_source_head
        from stochca.callbacks import JsonLines, read_events
        from stochca.composition import teacher_precision
        from stochca.devices import default_device, device_name
        from stochca.loaders import Preprocessing
        from stochca.looks import find_looks
        from stochca.precision import resolve_precision
        from stochca.training import check_settings, fit

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
        "num_workers": str(params.train.num_workers),
    }
    if params.train.num_workers == 1 or params.train.address == "local":  # else known when it is through
        tags |= {"device": device_name(device), "precision": precision}
    with (
        exclusive(folder.name),
        courier.tracked_run(params.tracking.experiment, job.name, tags, folder / "mlflow_run_id") as outbox,
    ):
        outbox.add_params(settings_to_compare(job, card, prepared.manifest))
        outbox.send()
        if params.train.num_workers > 1:
            fitted = fit_on_workers(
                Assignment(Path.cwd(), BACKBONE, folder.resolve(), LOG, job, class_texts),
                params.train,
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
                keep_looks=job.protocol.keep_looks,
                # The terminal comes before the network, which may fail or make one wait.
                callbacks=[JsonLines(folder / LOG), TrainingProgress(job.name), MlflowCallback(outbox)],
                device=device,
            )
        outbox.add_tags({"device": fitted.device, "precision": fitted.precision})
        fitted = dataclasses.replace(fitted, notes=[*images.notes, *fitted.notes])
        looks = find_looks(folder)
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


def settings_to_compare(job: Job, card: "BackboneCard", manifest: dict[str, Any]) -> dict[str, Any]:
    """What runs are compared by in MLflow's UI: the method's choices, then its training settings."""
    choices = {key: value for key, value in dataclasses.asdict(job.method).items() if key != "training"}
    return {
        "method": job.method_name,
        "seed": job.seed,
        "protocol": job.protocol.name,
        "target": job.target,
        "backbone": card.architecture,
        "image_size": card.image_size,
        "dataset": manifest["dataset"],
        "domains": ",".join(manifest["domains"]),
        "train_fraction": manifest["train_fraction"],
        **{key.removesuffix(".name"): value for key, value in flatten(choices).items()},
        **flatten(dataclasses.asdict(job.training), "training."),
    }


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
