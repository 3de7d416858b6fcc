"""From a method's choices to modules and parameters; nothing here knows a part by its name."""

import torch
from torch import nn

from stochca._typing import TimmModule
from stochca.adapters.adaptation import Adaptation
from stochca.attention.stochca import StochCA
from stochca.compute.precision import choose_attention_kernel, store_in_half
from stochca.config import Method, build


def settled_teacher(model: nn.Module, precision: str, device: torch.device) -> TimmModule | None:
    """The frozen model that `model` asks while it trains, if there is one, ready for what it computes in."""
    if not isinstance(model, StochCA):
        return None
    precision = model.teacher_precision or precision
    choose_attention_kernel(model.teacher, precision, device)
    store_in_half(model.teacher, precision)
    return model.teacher


def compose(
    method: Method, student: TimmModule, teacher: TimmModule | None = None, precision: str = "fp32"
) -> tuple[nn.Module, TimmModule]:
    """The model whose forward pass trains in `precision`, and the one that is evaluated and kept.

    They share parameters. The second is `student` itself, changed in place, or a model around it.
    """
    # First, so that its teacher is the model as it was pretrained.
    model: nn.Module = build(method.attention).attend(student, teacher, precision)
    adapted: TimmModule = build(method.adapter).adapt(student)
    # Whatever else attends by more than itself goes with adapters that work in place; `Method` sees to that.
    return (adapted if model is student else model), adapted


def kept_model(method: Method, student: TimmModule) -> TimmModule:
    """The model that `fit` would make of `student` and keep, before any training."""
    adaptation: Adaptation = build(method.adapter)
    return adaptation.finish(adaptation.adapt(student))
