"""What training asks of a choice of `attention`."""

import dataclasses
from typing import Any, Literal

import torch
from torch import nn

from stochca._typing import TimmModule
from stochca.attention.probability import one_per_block
from stochca.attention.stochca import StochCA
from stochca.compute.precision import resolve_precision
from stochca.errors import UserError
from stochca.timm_models.families import block_names
from stochca.timm_models.support import check_same_architecture, check_supported


class Attending:
    """Makes the model whose forward pass trains another; as it stands here, each block attends to itself."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def check(self, student: TimmModule, teacher: TimmModule | None) -> None:
        """Raise `UserError` for what `attend` can't do, without a copy of anything."""

    def attend(self, student: TimmModule, teacher: TimmModule | None, precision: str) -> nn.Module:
        """A model that shares the student's parameters; `teacher` is what the options name, if anything."""
        return student

    def teacher_precision(self, precision: str, device: torch.device) -> Literal["bf16"] | None:
        """What the teacher computes in, if not in `precision` as the student does."""
        return None

    def settled(self, precision: str, device: torch.device) -> Any:
        """The configuration, with nothing that is left to the device."""
        return self.config

    def notes(self, precision: str, device: torch.device) -> list[str]:
        """What a user should know of how the blocks of a student that trains in `precision` attend."""
        return []


class CrossAttending(Attending):
    """Stochastic cross-attention to the teacher."""

    def check(self, student: TimmModule, teacher: TimmModule | None) -> None:
        config = self.config
        check_supported(student)
        one_per_block(config.prob, len(block_names(student)), config.blocks)
        if config.teacher is not None and teacher is None:
            raise UserError(f"attention.teacher names {config.teacher!r}, but no teacher was given")
        if config.teacher is None and teacher is not None:
            raise UserError("a teacher was given, but attention.teacher is null: the method does not want it")
        if teacher is not None:
            check_same_architecture(student, teacher)

    def attend(self, student: TimmModule, teacher: TimmModule | None, precision: str) -> nn.Module:
        """StochCA; the teacher goes where the student is."""
        config, device = self.config, next(student.parameters()).device
        if teacher is not None:
            teacher.to(device)
        return StochCA(
            student,
            config.prob,
            teacher=teacher,
            granularity=config.granularity,
            blocks=config.blocks,
            schedule=config.schedule,
            teacher_precision=self.teacher_precision(precision, device),
        )

    def teacher_precision(self, precision: str, device: torch.device) -> Literal["bf16"] | None:
        wanted: str = self.config.teacher_precision
        if wanted == "auto" and precision == "fp32":
            wanted = resolve_precision("auto", device)
        return "bf16" if wanted == "bf16" and precision != "bf16" else None

    def settled(self, precision: str, device: torch.device) -> Any:
        teacher = self.teacher_precision(precision, device) or "same"
        return dataclasses.replace(self.config, teacher_precision=teacher)

    def notes(self, precision: str, device: torch.device) -> list[str]:
        teacher = self.teacher_precision(precision, device)
        note = f"The teacher computed in {teacher}, the student in {precision}"
        return [] if teacher is None else [f"{note}; teacher_precision: same changes it."]
