"""From a method's choices to modules and parameters; nothing here knows a method by its name."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn

from stochca._typing import TimmModule
from stochca.adapters.adaptation import Adaptation, HeadOnly
from stochca.adapters.lora import LowRank
from stochca.adapters.toast import TopDown
from stochca.adapters.vpt import Prompted
from stochca.attention.probability import one_per_block
from stochca.attention.stochca import StochCA
from stochca.compute.precision import choose_attention_kernel, resolve_precision, store_in_half
from stochca.config import (
    Adapter,
    AllWeights,
    Attention,
    HeadAlone,
    Lora,
    LpFt,
    Method,
    Phases,
    SelfAttention,
    SinglePhase,
    StochasticCrossAttention,
    Toast,
    ToastLite,
    Vpt,
    ZeroShot,
)
from stochca.data.images import Images
from stochca.data.preprocessing import Preprocessing
from stochca.errors import UserError
from stochca.phases.linear_head import fit_head, linear_heads
from stochca.phases.zero_shot import ClassTexts, make_head
from stochca.timm_models.families import block_names
from stochca.timm_models.support import check_same_architecture, check_supported


def teacher_precision(config: Attention, precision: str, device: torch.device) -> Literal["bf16"] | None:
    """What the teacher computes in, if not in `precision` as the student does."""
    wanted: str = config.teacher_precision if isinstance(config, StochasticCrossAttention) else "same"
    if wanted == "auto" and precision == "fp32":
        wanted = resolve_precision("auto", device)
    return "bf16" if wanted == "bf16" and precision != "bf16" else None


def attention_notes(config: Attention, precision: str, device: torch.device) -> list[str]:
    """What a user should know of how the blocks of a student that trains in `precision` attend."""
    other = teacher_precision(config, precision, device)
    if other is None:
        return []
    return [
        f"The teacher computed in {other}, the student in {precision}; teacher_precision: same changes it."
    ]


def cross_attend(
    config: StochasticCrossAttention, student: TimmModule, teacher: TimmModule | None, precision: str
) -> nn.Module:
    """StochCA with the options of a method; the teacher goes where the student is."""
    device = next(student.parameters()).device
    if teacher is not None:
        teacher.to(device)
    return StochCA(
        student,
        config.prob,
        teacher=teacher,
        granularity=config.granularity,
        blocks=config.blocks,
        schedule=config.schedule,
        teacher_precision=teacher_precision(config, precision, device),
    )


def check_cross_attention(
    config: StochasticCrossAttention, student: TimmModule, teacher: TimmModule | None
) -> None:
    """Raise `UserError` for what `cross_attend` can't do, without a copy of anything."""
    check_supported(student)
    one_per_block(config.prob, len(block_names(student)), config.blocks)
    if config.teacher is not None and teacher is None:
        raise UserError(f"attention.teacher names {config.teacher!r}, but no teacher was given")
    if config.teacher is None and teacher is not None:
        raise UserError("a teacher was given, but attention.teacher is null: the method does not want it")
    if teacher is not None:
        check_same_architecture(student, teacher)


ATTENTIONS: dict[type, Callable[[Any, TimmModule, TimmModule | None, str], nn.Module]] = {
    SelfAttention: lambda config, student, teacher, precision: student,
    StochasticCrossAttention: cross_attend,
}

# What `attend` would refuse, found without copying a teacher.
CHECKS: dict[type, Callable[[Any, TimmModule, TimmModule | None], None]] = {
    SelfAttention: lambda config, student, teacher: None,
    StochasticCrossAttention: check_cross_attention,
}

ADAPTATIONS: dict[type, type[Adaptation]] = {
    AllWeights: Adaptation,
    HeadAlone: HeadOnly,
    Lora: LowRank,
    Vpt: Prompted,
    Toast: TopDown,
    ToastLite: TopDown,
}

FIRST_PHASES: dict[type, Callable[..., str | None]] = {
    SinglePhase: lambda config, student, train, validation, preprocessing, texts, **kwargs: None,
    LpFt: lambda config, student, train, validation, preprocessing, texts, **kwargs: fit_head(
        student, train, validation, preprocessing, strengths=config.C, **kwargs
    ),
    ZeroShot: lambda config, student, train, validation, preprocessing, texts, refit, **kwargs: make_head(
        student, texts, validation, preprocessing, **kwargs
    ),
}


def attend(
    config: Attention, student: TimmModule, teacher: TimmModule | None = None, precision: str = "fp32"
) -> nn.Module:
    """The model whose forward pass trains `student` in `precision`; it shares the student's parameters.

    `teacher` is what `attention.teacher` names; None where it names nothing.
    """
    return ATTENTIONS[type(config)](config, student, teacher, precision)


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


def adaptation(config: Adapter) -> Adaptation:
    """What the loop asks of the choice of `adapter`."""
    return ADAPTATIONS[type(config)](config)


def compose(
    method: Method, student: TimmModule, teacher: TimmModule | None = None, precision: str = "fp32"
) -> tuple[nn.Module, TimmModule]:
    """The model whose forward pass trains in `precision`, and the one that is evaluated and kept.

    They share parameters. The second is `student` itself, changed in place, or a model around it.
    """
    # First, so that its teacher is the model as it was pretrained.
    model = attend(method.attention, student, teacher, precision)
    adapted = adaptation(method.adapter).adapt(student)
    # Whatever else attends by more than itself goes with adapters that work in place; `Method` sees to that.
    return (adapted if model is student else model), adapted


def kept_model(method: Method, student: TimmModule) -> TimmModule:
    """The model that `fit` would make of `student` and keep, before any training."""
    train = adaptation(method.adapter)
    return train.finish(train.adapt(student))


def first_phase(
    config: Phases,
    student: TimmModule,
    train: Images,
    validation: Images,
    preprocessing: Preprocessing,
    class_texts: ClassTexts | None,
    **loading: Any,
) -> str | None:
    """What happens before the loop; returns a sentence about it, or None."""
    phase = FIRST_PHASES[type(config)]
    return phase(config, student, train, validation, preprocessing, class_texts, **loading)


def check_composition(
    method: Method,
    student: TimmModule,
    teacher: TimmModule | None = None,
    class_texts: ClassTexts | None = None,
) -> None:
    """Raise `UserError` if a choice of `method` does not suit the model."""
    CHECKS[type(method.attention)](method.attention, student, teacher)
    adaptation(method.adapter).check(student)
    if isinstance(method.phases, LpFt):
        linear_heads(student)
    if isinstance(method.phases, ZeroShot):
        if class_texts is None:
            raise UserError("phases zero_shot needs the text features of the classes, but none were given")
        class_texts.check(student)
