"""From a method's choices to modules and parameters; nothing here knows a part by its name."""

from typing import Literal

import torch
from torch import nn

from stochca._typing import TimmModule
from stochca.adapters.adaptation import Adaptation
from stochca.attention.attending import Attending
from stochca.attention.stochca import StochCA
from stochca.compute.precision import choose_attention_kernel, store_in_half
from stochca.config import Adapter, Attention, Method, Phases, code_of
from stochca.config.training import Training
from stochca.errors import UserError
from stochca.phases.class_texts import ClassTexts
from stochca.phases.first_phase import FirstPhase


def attending(config: Attention) -> Attending:
    """What training asks of the choice of `attention`."""
    code: Attending = code_of(type(config))(config)
    return code


def adaptation(config: Adapter) -> Adaptation:
    """What training asks of the choice of `adapter`."""
    code: Adaptation = code_of(type(config))(config)
    return code


def first_phase(config: Phases) -> FirstPhase:
    """What training asks of the choice of `phases`."""
    code: FirstPhase = code_of(type(config))(config)
    return code


def teacher_precision(config: Attention, precision: str, device: torch.device) -> Literal["bf16"] | None:
    """What the teacher computes in, if not in `precision` as the student does."""
    return attending(config).teacher_precision(precision, device)


def attention_notes(config: Attention, precision: str, device: torch.device) -> list[str]:
    """What a user should know of how the blocks of a student that trains in `precision` attend."""
    other = teacher_precision(config, precision, device)
    if other is None:
        return []
    return [
        f"The teacher computed in {other}, the student in {precision}; teacher_precision: same changes it."
    ]


def set_progress(model: nn.Module, step: int, steps: int) -> None:
    """Tell what follows a schedule that the next forward passes belong to `step`, counted from 1."""
    if isinstance(model, StochCA):
        model.set_progress(step, steps)


def settled_teacher(model: nn.Module, precision: str, device: torch.device) -> TimmModule | None:
    """The frozen model that `model` asks while it trains, if there is one, ready for what it computes in."""
    if not isinstance(model, StochCA):
        return None
    precision = model.teacher_precision or precision
    choose_attention_kernel(model.teacher, precision, device)
    store_in_half(model.teacher, precision)
    return model.teacher


def cross_attended(model: nn.Module) -> list[float]:
    """Of each block the share of the training images that cross-attended in it; empty without StochCA."""
    return model.tally.shares if isinstance(model, StochCA) else []


def compose(
    method: Method, student: TimmModule, teacher: TimmModule | None = None, precision: str = "fp32"
) -> tuple[nn.Module, TimmModule]:
    """The model whose forward pass trains in `precision`, and the one that is evaluated and kept.

    They share parameters. The second is `student` itself, changed in place, or a model around it.
    """
    # First, so that its teacher is the model as it was pretrained.
    model = attending(method.attention).attend(student, teacher, precision)
    adapted = adaptation(method.adapter).adapt(student)
    # Whatever else attends by more than itself goes with adapters that work in place; `Method` sees to that.
    return (adapted if model is student else model), adapted


def kept_model(method: Method, student: TimmModule) -> TimmModule:
    """The model that `fit` would make of `student` and keep, before any training."""
    train = adaptation(method.adapter)
    return train.finish(train.adapt(student))


def check_composition(
    method: Method,
    student: TimmModule,
    *,
    teacher: TimmModule | None = None,
    class_texts: ClassTexts | None = None,
    source_head: nn.Linear | None = None,
    settings: Training | None = None,
    micro_batch: int = 1,
    refit: bool = False,
) -> None:
    """Find what would stop the parts of `method` later, before any work.

    Raises:
        UserError: a choice does not suit the model, lacks what it needs, or can't be trained with `settings`,
            where these are given, in micro-batches of so many images.
    """
    if settings is not None:
        try:
            method.check_training(settings, micro_batch=micro_batch, refit=refit)
        except ValueError as error:
            raise UserError(str(error)) from None
    for penalty in method.penalties:
        if penalty.needs_source_head and source_head is None:
            raise UserError(
                f"penalties {penalty.name} needs a backbone with the classifier of its pretraining, and this "
                "one has none; choose weights with a head, such as vit_base_patch16_224.augreg_in1k from the "
                "hub"
            )
    attending(method.attention).check(student, teacher)
    adaptation(method.adapter).check(student)
    first_phase(method.phases).check(student, class_texts)
