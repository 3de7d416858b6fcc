"""From a method's choices to modules and parameters; nothing here knows a method by its name."""

from collections.abc import Callable
from typing import Any

from torch import nn

from stochca._typing import TimmModule
from stochca.cross_attention import StochCA, one_per_block
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
)

ATTENTIONS: dict[type, Callable[[Any, nn.Module], nn.Module]] = {
    SelfAttention: lambda config, student: student,
    StochasticCrossAttention: lambda config, student: StochCA(student, config.prob),
}

# What `attend` would refuse, found without copying a teacher.
CHECKS: dict[type, Callable[[Any, TimmModule], object]] = {
    SelfAttention: lambda config, student: None,
    StochasticCrossAttention: lambda config, student: one_per_block(config.prob, student),
}

FIRST_PHASES: dict[type, Callable[..., str | None]] = {
    SinglePhase: lambda config, student, train, validation, preprocessing, **kwargs: None,
    LpFt: lambda config, student, train, validation, preprocessing, **kwargs: fit_head(
        student, train, validation, preprocessing, strengths=config.C, **kwargs
    ),
}


def attend(config: Attention, student: TimmModule) -> nn.Module:
    """The model whose forward pass trains `student`; it shares the student's parameters."""
    return ATTENTIONS[type(config)](config, student)


def first_phase(
    config: Phases,
    student: TimmModule,
    train: Images,
    validation: Images,
    preprocessing: Preprocessing,
    **loading: Any,
) -> str | None:
    """What happens before the loop; returns a sentence about it, or None."""
    return FIRST_PHASES[type(config)](config, student, train, validation, preprocessing, **loading)


def check_composition(method: Method, student: TimmModule) -> None:
    """Raise `UserError` if a choice of `method` does not suit the model."""
    CHECKS[type(method.attention)](method.attention, student)
    if isinstance(method.phases, LpFt):
        linear_heads(student)


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
