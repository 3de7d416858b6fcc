"""Everything that `fit` takes, loaded in one way for a stage, for each of its workers and for a trial."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.images.prepared import Prepared, load_prepared
from pipeline.images.protocol import RunImages, images_for
from pipeline.runtime.files import sha256
from pipeline.runtime.paths import BACKBONE
from pipeline.training.class_texts import class_texts_of
from pipeline.training.job import Job
from stochca._typing import TimmModule
from stochca.backbones.card import CARD_FILE, BackboneCard, teacher_folder
from stochca.backbones.loading import load_backbone, load_source_head
from stochca.config import Method
from stochca.config.selection import Selection
from stochca.config.training import Training
from stochca.data.images import Images
from stochca.data.preprocessing import Preprocessing
from stochca.errors import UserError
from stochca.phases.first_phase import ClassTexts
from stochca.timm_models.normalisation import renormalise
from stochca.training.inputs import Inputs

DECODERS, DECODERS_CARD = "decoders.safetensors", "card.json"  # what the stage pretune leaves


@dataclass(frozen=True)
class Loaded:
    """What a job is done with."""

    card: BackboneCard
    teacher: BackboneCard | None  # of another model than the backbone itself
    prepared: Prepared
    images: RunImages
    inputs: Inputs


def load_job(job: Job, class_texts: ClassTexts | None = None) -> Loaded:
    """Read what the stages backbone and prepare left in the project's folder.

    Args:
        class_texts: what the method's first phase makes a head of, if it is known already.

    Raises:
        UserError: something of it is missing or damaged, or does not suit the job.
    """
    prepared = load_prepared()
    images = images_for(prepared, job.protocol.name, job.target, job.seed)
    images.check(prepared.classes, job.protocol.selection)
    inputs = make_inputs(
        BACKBONE,
        prepared.classes,
        images.train,
        images.validation,
        method=job.method,
        settings=job.training,
        domains=images.balanced_domains(job.protocol.refit),
        refit=job.protocol.refit,
        selection=job.protocol.selection,
        seed=job.seed,
        class_texts=class_texts,
    )
    card = BackboneCard.from_file(BACKBONE / CARD_FILE)
    return Loaded(card, teacher_card(job.method, BACKBONE), prepared, images, inputs)


def make_inputs(
    backbone: Path,
    classes: Sequence[str],
    train: Images,
    validation: Images,
    *,
    method: Method,
    settings: Training,
    seed: int,
    domains: Sequence[str] | None = None,
    selection: Selection = "accuracy",
    refit: bool = False,
    class_texts: ClassTexts | None = None,
) -> Inputs:
    """A student with the weights of `backbone` and a fresh head, and what the method needs beside it."""
    preprocessing = Preprocessing.of(BackboneCard.from_file(backbone / CARD_FILE))
    return Inputs(
        load_backbone(backbone, num_classes=len(classes), drop_path=settings.drop_path, seed=seed),
        train,
        validation,
        method=replace(method, training={}),  # which the settings hold by now
        settings=settings,
        preprocessing=preprocessing,
        source_head=load_source_head(backbone),
        teacher=load_teacher(method, backbone, preprocessing),
        class_texts=class_texts or class_texts_of(method, classes, backbone),
        domains=domains,
        selection=selection,
        classes=classes,
        refit=refit,
        seed=seed,
    )


def teacher_card(method: Method, backbone: Path) -> BackboneCard | None:
    """The card of the teacher that the method names, another pretrained model; None: the backbone itself."""
    name = getattr(method.attention, "teacher", None)
    return None if name is None else BackboneCard.from_file(teacher_folder(backbone, name) / CARD_FILE)


def load_teacher(method: Method, backbone: Path, preprocessing: Preprocessing) -> TimmModule | None:
    """The teacher that the method names, which takes images as `preprocessing` gives them.

    Raises:
        UserError: its folder is incomplete, or it can't be made to take such images.
    """
    if (card := teacher_card(method, backbone)) is None:
        return None
    name = getattr(method.attention, "teacher", "")
    teacher = load_backbone(teacher_folder(backbone, name), num_classes=0)
    try:
        renormalise(teacher, (card.mean, card.std), (preprocessing.mean, preprocessing.std))
    except UserError as error:
        raise UserError(f"teachers.{name}: {error}") from None
    return teacher


def decoders_sha256(method: Method, backbone: BackboneCard) -> str | None:
    """The sha256 of the file with the pre-tuned decoders that TOAST starts from; None: the method reads none.

    Raises:
        UserError: the file or its card is missing or damaged, or the decoders are for another backbone.
    """
    decoders = getattr(method.adapter, "decoders", None)
    if decoders is None:
        return None
    path = Path(decoders)
    try:
        card = json.loads((path.parent / DECODERS_CARD).read_text())
        found = sha256(path)
        expected, theirs = card["decoders_sha256"], card["backbone_sha256"]
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing; pre-tune decoders first: dvc repro pretune") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path.parent} is damaged ({error}); run: dvc repro --force pretune") from None
    if found != expected:
        raise UserError(
            f"{path} is not what {DECODERS_CARD} describes: its sha256 is {found}, not {expected}; run: "
            "dvc repro --force pretune"
        )
    if theirs != backbone.weights_sha256:
        raise UserError(
            f"{path} was pre-tuned for the backbone with the sha256 {theirs}, but that of data/backbone is "
            f"{backbone.weights_sha256}; run: dvc repro pretune"
        )
    return found
