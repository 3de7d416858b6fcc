"""What a training run is made from: a model, its images, a method and settings; and what would stop it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from stochca._typing import TimmModule
from stochca.compute.compilation import check_compiles
from stochca.compute.distributed import world_size
from stochca.compute.precision import resolve_precision
from stochca.config import Method, build
from stochca.config.selection import Selection
from stochca.config.timetable import Timetable
from stochca.config.training import Training
from stochca.data.batches import images_of_step
from stochca.data.class_weights import check_class_weights, class_weights
from stochca.data.images import CheckedLabels, Images, are_steady, keep_in_memory, labels_of, names_of
from stochca.data.preprocessing import Preprocessing
from stochca.errors import UserError
from stochca.evaluation import check_every_class, check_selection
from stochca.phases.first_phase import ClassTexts
from stochca.training.optimisation import create_optimizer


@dataclass(frozen=True)
class Inputs:
    """What `fit` trains, on which images, and how.

    With `refit` the validation images, on which everything has been chosen, are trained on too: nothing is
    evaluated any more, and the weights of the last step are kept.
    """

    student: TimmModule  # of timm, with a fresh head; it is trained in place
    train: Images
    validation: Images  # what the weights are chosen by, and nothing else is; the same each time
    method: Method
    settings: Training
    preprocessing: Preprocessing
    source_head: nn.Linear | None = None  # the classifier that the backbone was pretrained with
    # The model that `attention.teacher` names; frozen in place, its projections in what it computes in.
    teacher: TimmModule | None = None
    class_texts: ClassTexts | None = None  # what the first phase `zero_shot` makes a head of
    domains: Sequence[str] | None = None  # of each image trained on; batches hold equally many of each
    selection: Selection = "accuracy"  # the metric that validation chooses the weights by
    classes: Sequence[str] | None = None  # their names; None: they are numbered
    refit: bool = False
    seed: int = 0

    @property
    def parts(self) -> tuple[Images, ...]:
        """The images that batches are drawn from."""
        return (self.train, self.validation) if self.refit else (self.train,)

    @property
    def images(self) -> int:
        """How many are trained on."""
        return sum(len(part) for part in self.parts)

    @property
    def timetable(self) -> Timetable:
        """The settings' budget in steps, which is all that the loop knows of it."""
        return self.settings.timetable(self.images)

    @cached_property
    def labels(self) -> np.ndarray:
        """Of the images that batches are drawn from."""
        return np.concatenate([labels_of(part) for part in self.parts])

    @property
    def balanced_labels(self) -> np.ndarray | None:
        """The labels, where batches show all classes equally often."""
        return self.labels if self.settings.sampler == "balanced" else None

    @property
    def class_names(self) -> Sequence[str]:
        return self.classes or [str(label) for label in range(self.student.num_classes)]

    @property
    def class_weights(self) -> tuple[float, ...] | None:
        """Of the loss, one per class; None: all count the same."""
        return self._class_weights(self.domains)

    @property
    def class_weights_of_images(self) -> tuple[float, ...] | None:
        """The same for what sees every image once, and so some domains more often than others."""
        return self._class_weights(None)

    def _class_weights(self, domains: Sequence[str] | None) -> tuple[float, ...] | None:
        wanted, evenly = self.settings.class_weights, self.settings.sampler == "balanced"
        if wanted == "none":
            return None
        return class_weights(wanted, self.labels, self.class_names, evenly=evenly, domains=domains)

    def names_of_step(self, step: int) -> list[str]:
        """Which images all ranks together see in `step`, counted from 1."""
        shown = images_of_step(
            self.images,
            self.settings,
            domains=self.domains,
            labels=self.balanced_labels,
            seed=self.seed,
            step=step,
        )
        return names_of(self.parts, shown)

    def labelled(self) -> "Inputs":
        """The same with images whose labels are checked when they are read."""
        classes = getattr(self.student.get_classifier(), "out_features", None)
        return dataclasses.replace(
            self,
            train=CheckedLabels(self.train, "training images", classes),
            validation=CheckedLabels(self.validation, "validation images", classes),
        )

    def settled(self, device: torch.device) -> "Inputs":
        """The same with the precisions that `auto` is on this device."""
        precision: Any = resolve_precision(self.settings.precision, device)
        attention = build(self.method.attention).settled(precision, device)
        return dataclasses.replace(
            self,
            method=dataclasses.replace(self.method, attention=attention),
            settings=dataclasses.replace(self.settings, precision=precision),
        )

    def decoded(self) -> "Inputs":
        """The same with images in memory, where they fit and are the same each time."""
        reads = self.timetable.steps * self.settings.batch_size
        return dataclasses.replace(
            self, train=keep_in_memory(self.train, reads), validation=keep_in_memory(self.validation)
        )


def check_settings(inputs: Inputs, device: torch.device) -> None:
    """Refuse what `fit` can't do; the images are not looked at.

    Raises:
        UserError: the device lacks the precision or what compiling needs, timm knows no such optimiser or
            augmentation, a choice of the method does not suit the model or the settings or lacks what it
            needs, the ranks or domains can't share a batch, there is no class that has a weight, or the
            metric that selects is not installed.
    """
    method, settings = inputs.method, inputs.settings
    if method.training:
        raise UserError(
            f"method.training sets {', '.join(method.training)}, but the settings of a training are given "
            "beside the method; put it into settings, and leave method.training out"
        )
    resolve_precision(settings.precision, device)
    names = sorted(set(inputs.domains or ()))
    if names and settings.batch_size % len(names):
        raise UserError(
            f"training.batch_size {settings.batch_size} can't hold equally many images of the {len(names)} "
            f"domains {', '.join(names)}; choose a multiple of {len(names)}"
        )
    try:
        settings.check_domains(balanced=bool(names))
        micro_batch = settings.micro_batch(world_size())
    except ValueError as error:
        raise UserError(f"training.{error}") from None
    if settings.compile:
        check_compiles(device)
    create_optimizer(inputs.student, settings)
    check_class_weights(settings.class_weights, inputs.class_names)
    check_selection(inputs.selection)
    inputs.preprocessing.training(settings.augmentation)
    try:
        method.check_training(settings, micro_batch=micro_batch, refit=inputs.refit)
    except ValueError as error:
        raise UserError(str(error)) from None
    for penalty in method.penalties:
        if penalty.needs_source_head and inputs.source_head is None:
            raise UserError(
                f"penalties {penalty.name} needs a backbone with the classifier of its pretraining, and this "
                "one has none (a CLIP's projection is no classifier); choose weights with one, such as "
                "vit_base_patch16_224.augreg_in1k from the hub"
            )
    build(method.attention).check(inputs.student, inputs.teacher)
    build(method.adapter).check(inputs.student)
    build(method.phases).check(inputs.student, inputs.class_texts)


def check_classes(inputs: Inputs) -> None:
    """Raise `UserError` where a number is one class of the training images, and another of validation.

    Both say so as torchvision's collections do: in `class_to_idx`, and without a `target_transform`.
    """
    trained, validated = (
        {}
        if getattr(images, "target_transform", None)
        else {number: name for name, number in (getattr(images, "class_to_idx", None) or {}).items()}
        for images in (inputs.train, inputs.validation)
    )
    for number, name in sorted(trained.items()):
        if validated.get(number, name) != name:
            raise UserError(
                f"class {number} is {name!r} in the training images, but {validated[number]!r} in the "
                "validation images; number the classes of both alike: ImageFolder counts the folders that "
                "there are, so both need one for every class, which may be empty with allow_empty=True"
            )


def check_images(inputs: Inputs) -> None:
    """Raise `UserError` where images lack, or domains, or nothing could be chosen by validation."""
    for name, split in (("training", inputs.train), ("validation", inputs.validation)):
        if len(split) < world_size():
            number = f"only {len(split)}" if len(split) else "no"
            raise UserError(f"there are {number} {name} images")
    if inputs.domains is not None and len(inputs.domains) != inputs.images:
        raise UserError(
            f"domains names those of {len(inputs.domains)} images, but {inputs.images} are trained on, which "
            "with refit are those of validation too; give one per image"
        )
    if not inputs.refit and not are_steady(inputs.validation):
        raise UserError(
            "the validation images differ each time that they are read, and weights can't be chosen by them; "
            "leave random transforms out of their dataset"
        )
    if inputs.selection == "auroc":
        check_every_class(labels_of(inputs.validation), inputs.class_names, "validation images")
