"""What would stop a training run later, found before any work."""

import torch

from stochca.compute.compilation import check_compiles
from stochca.compute.distributed import world_size
from stochca.compute.precision import resolve_precision
from stochca.errors import UserError
from stochca.training.composition import check_composition
from stochca.training.inputs import Inputs
from stochca.training.optimisation import create_optimizer


def check_settings(inputs: Inputs, device: torch.device) -> None:
    """Refuse what `fit` can't do; the images are not looked at.

    Raises:
        UserError: the device lacks the precision or what compiling needs, timm knows no such optimiser or
            augmentation, a choice of the method does not suit the model, or the ranks or domains can't share
            a batch.
    """
    method, settings = inputs.method, inputs.settings
    resolve_precision(settings.precision, device)
    names = sorted(set(inputs.domains or ()))
    if names and settings.batch_size % len(names):
        raise UserError(
            f"training.batch_size {settings.batch_size} can't hold equally many images of the {len(names)} "
            f"domains {', '.join(names)}; choose a multiple of {len(names)}"
        )
    try:
        micro_batch = settings.micro_batch(world_size())
    except ValueError as error:
        raise UserError(f"training.{error}") from None
    if settings.compile:
        check_compiles(device)
    create_optimizer(inputs.student, settings)
    inputs.preprocessing.training(settings.augmentation)
    try:
        method.check_training(settings, micro_batch=micro_batch, refit=inputs.refit)
    except ValueError as error:
        raise UserError(str(error)) from None
    check_composition(
        method,
        inputs.student,
        teacher=inputs.teacher,
        class_texts=inputs.class_texts,
        source_head=inputs.source_head,
    )


def check_images(inputs: Inputs) -> None:
    """Raise `UserError` where a rank would have no image."""
    for name, split in (("training", inputs.train), ("validation", inputs.validation)):
        if len(split) < world_size():
            number = f"only {len(split)}" if len(split) else "no"
            raise UserError(f"there are {number} {name} images")
