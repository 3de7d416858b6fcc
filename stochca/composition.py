"""From a method's choices to modules and parameters; nothing here knows a method by its name."""

from collections.abc import Callable
from typing import Any

from torch import nn

from stochca._typing import TimmModule
from stochca.cross_attention import StochCA
from stochca.errors import UserError
from stochca.linear_head import fit_head, linear_heads
from stochca.loaders import Images, Preprocessing
from stochca.methods import (
    Attention,
    LpFt,
    Method,
    Phases,
    SelfAttention,
    SinglePhase,
    StochasticCrossAttention,
    ZeroShot,
)
from stochca.zero_shot import ClassTexts, make_head


def cross_attend(
    config: StochasticCrossAttention, student: TimmModule, teacher: TimmModule | None
) -> nn.Module:
    """StochCA with the options of a method; the teacher goes where the student is."""
    if config.teacher is not None and teacher is None:
        raise UserError(f"attention.teacher names {config.teacher!r}, but no teacher was given")
    if config.teacher is None and teacher is not None:
        raise UserError("a teacher was given, but attention.teacher is null: the method does not want it")
    if teacher is not None:
        teacher.to(next(student.parameters()).device)
    return StochCA(
        student,
        config.prob,
        teacher=teacher,
        granularity=config.granularity,
        blocks=config.blocks,
        schedule=config.schedule,
    )


ATTENTIONS: dict[type, Callable[[Any, TimmModule, TimmModule | None], nn.Module]] = {
    SelfAttention: lambda config, student, teacher: student,
    StochasticCrossAttention: cross_attend,
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


def attend(config: Attention, student: TimmModule, teacher: TimmModule | None = None) -> nn.Module:
    """The model whose forward pass trains `student`; it shares the student's parameters.

    `teacher` is what `attention.teacher` names; None where it names nothing.
    """
    return ATTENTIONS[type(config)](config, student, teacher)


def set_progress(model: nn.Module, step: int, steps: int) -> None:
    """Tell what follows a schedule that the next forward passes belong to `step`, counted from 1."""
    if isinstance(model, StochCA):
        model.set_progress(step, steps)


def cross_attended(model: nn.Module) -> list[float]:
    """Of each block the share of the training images that cross-attended in it; empty without StochCA."""
    return model.tally.shares if isinstance(model, StochCA) else []


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
    attend(method.attention, student, teacher)
    if isinstance(method.phases, LpFt):
        linear_heads(student)
    if isinstance(method.phases, ZeroShot):
        if class_texts is None:
            raise UserError("phases zero_shot needs the text features of the classes, but none were given")
        class_texts.check(student)


def head_modules(student: TimmModule) -> list[nn.Module]:
    """The classifier; distilled models have two."""
    heads = student.get_classifier()
    return list(heads) if isinstance(heads, tuple) else [heads]


def freeze(student: TimmModule, train: str) -> None:
    """Leave trainable what `train` names: everything, or the head alone."""
    student.requires_grad_(train == "all")
    for head in head_modules(student):
        head.requires_grad_(True)


def set_training_mode(model: nn.Module, student: TimmModule, train: str) -> None:
    """Training mode where something learns: a frozen backbone is not dropped out of."""
    model.train()
    if train == "head":
        student.eval()
        for head in head_modules(student):
            head.train()
