"""A term of the loss, and what it gets. Each penalty is one, to keep what pretraining has learned."""

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.data.examples import Examples
from stochca.timm_models.recording import Records, records_of


@dataclass(frozen=True)
class Start:
    """Where fine-tuning begins: a frozen copy of the student, and the classifier of its pretraining."""

    model: TimmModule
    source_head: nn.Linear | None

    @classmethod
    def of(cls, student: TimmModule, source_head: nn.Linear | None) -> "Start":
        return cls(copy.deepcopy(student).requires_grad_(False).eval(), source_head)


class Batch:
    """A batch after the student's forward pass; made in the autocast of that pass."""

    def __init__(self, images: Tensor, targets: Tensor, student: Records, start: Start) -> None:
        self.images = images  # (B, 3, height, width)
        self.targets = targets  # probabilities of the classes, (B, classes)
        self.student = student
        self._start = start
        device = images.device.type
        self._autocast = torch.autocast(
            device, torch.get_autocast_dtype(device), enabled=torch.is_autocast_enabled(device)
        )

    @cached_property
    def start(self) -> Records:
        """What the pretrained model computes on the same images; it runs when this is asked for.

        In the student's precision, so that their difference is what training changed.
        """
        with self._autocast:
            return records_of(self._start.model, self.images)


class Term:
    """One term of the loss. `student` is what is trained; it must not be changed."""

    replaces_weight_decay = False

    def __init__(self, config: Any, student: TimmModule, start: Start, examples: Examples) -> None:
        self.config = config

    def __call__(self, batch: Batch) -> Tensor:
        raise NotImplementedError

    def modules(self) -> dict[str, tuple[nn.Module, float]]:
        """What the term trains itself, each with the factor of its learning rate."""
        return {}
