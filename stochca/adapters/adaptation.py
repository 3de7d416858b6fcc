"""What the training loop asks of a choice of `adapter`."""

from typing import Any

from torch import nn

from stochca._typing import TimmModule
from stochca.errors import UserError
from stochca.timm_models.families import head_modules


class Adaptation:
    """Turns a timm model into one of which the right part learns; as it stands here, everything learns."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def check(self, student: TimmModule) -> None:
        """Raise `UserError` if the model can't be adapted. Costs next to nothing."""
        frozen = [name for name, parameter in student.named_parameters() if not parameter.requires_grad]
        if frozen:
            raise UserError(
                f"the student's {frozen[0]} is frozen, but `adapter` decides what learns: call "
                "student.requires_grad_(True) first, and for less than all choose an adapter other than 'all'"
            )

    def adapt(self, student: TimmModule) -> TimmModule:
        """The model that learns: `student` itself, or one around it. Draws from torch's global generator."""
        return student.requires_grad_(True)

    def set_training_mode(self, model: nn.Module, adapted: TimmModule) -> None:
        """Training mode where something learns; `model` is `adapted`, or what trains it."""
        model.train()

    def plain(self, adapted: TimmModule) -> TimmModule:
        """As `finish`, but `adapted` stays as it is; a copy, where that is needed."""
        return adapted

    def finish(self, adapted: TimmModule) -> TimmModule:
        """The model that is kept: a plain timm model wherever that can express it."""
        return adapted

    @property
    def notes(self) -> list[str]:
        """What a person should know about it."""
        return []


def unfreeze_heads(student: TimmModule) -> None:
    """Let the classifier learn, whatever else does."""
    for head in head_modules(student):
        head.requires_grad_(True)
