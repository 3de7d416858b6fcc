"""Linear probing: the head learns on frozen features."""

from torch import nn

from stochca._typing import TimmModule
from stochca.adapters.adaptation import Adaptation, unfreeze_heads
from stochca.timm_models.families import head_modules


class HeadOnly(Adaptation):
    """The choice `adapter: head`."""

    def check(self, student: TimmModule) -> None:
        """What is frozen already, may be."""

    def adapt(self, student: TimmModule) -> TimmModule:
        student.requires_grad_(False)
        unfreeze_heads(student)
        return student

    def set_training_mode(self, model: nn.Module, adapted: TimmModule) -> None:
        """A frozen backbone is not dropped out of."""
        model.train()
        adapted.eval()
        for head in head_modules(adapted):
            head.train()
