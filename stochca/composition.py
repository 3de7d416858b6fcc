"""From a method's choices to modules and parameters; nothing here knows a method by its name."""

from collections.abc import Callable
from typing import Any

from torch import nn

from stochca._typing import TimmModule
from stochca.adapters.adaptation import Adaptation, HeadOnly
from stochca.adapters.lora import LowRank
from stochca.adapters.prompts import Prompted
from stochca.adapters.toast import TopDown
from stochca.cross_attention import StochCA, one_per_block
from stochca.linear_head import fit_head, linear_heads
from stochca.loaders import Images, Preprocessing
from stochca.methods import (
    Attention,
    Lora,
    LpFt,
    Method,
    Phases,
    SelfAttention,
    SinglePhase,
    StochasticCrossAttention,
    Toast,
    ToastLite,
    Train,
    TrainAll,
    TrainHead,
    Vpt,
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

ADAPTATIONS: dict[type, type[Adaptation]] = {
    TrainAll: Adaptation,
    TrainHead: HeadOnly,
    Lora: LowRank,
    Vpt: Prompted,
    Toast: TopDown,
    ToastLite: TopDown,
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


def adaptation(config: Train) -> Adaptation:
    """What the loop asks of the choice of `train`."""
    return ADAPTATIONS[type(config)](config)


def compose(method: Method, student: TimmModule) -> tuple[nn.Module, TimmModule]:
    """The model whose forward pass trains, and the one that is evaluated and kept; they share parameters.

    The second is `student` itself, changed in place, or a model around it.
    """
    model = attend(method.attention, student)  # first, so that its teacher is the model as it was pretrained
    adapted = adaptation(method.train).adapt(student)
    # Whatever else attends by more than itself goes with adapters that work in place; `Method` sees to that.
    return (adapted if model is student else model), adapted


def kept_model(method: Method, student: TimmModule) -> TimmModule:
    """The model that `fit` would make of `student` and keep, before any training."""
    train = adaptation(method.train)
    return train.finish(train.adapt(student))


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
    adaptation(method.train).check(student)
    if isinstance(method.phases, LpFt):
        linear_heads(student)
