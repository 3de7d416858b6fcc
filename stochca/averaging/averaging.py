"""What the training loop tells an average at every step and evaluation, and asks of it at the end."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.config import Average
from stochca.evaluation import Scores

Weights = dict[str, Tensor]
Evaluate = Callable[[nn.Module], Scores]


class Averaging:
    """What the loop tells and asks; as it stands here, the weights that were best on validation are kept."""

    def __init__(self, config: Average, student: TimmModule, steps: int) -> None:
        self.notes: list[str] = []

    def before_training(self, student: TimmModule) -> None:
        """No step has been taken yet; a first phase is through."""

    def after_step(self, student: TimmModule, step: int) -> None:
        """`step` optimiser steps have been taken."""

    def evaluated(self, student: TimmModule) -> nn.Module:
        """The model that is evaluated on the validation images."""
        return student

    def after_evaluation(self, student: TimmModule, step: int, loss: float) -> None:
        """The evaluated model has this validation loss."""

    def finish(self, student: TimmModule, best: Weights, evaluate: Evaluate) -> Weights | None:
        """The weights to keep, with the names of `student`; None keeps `best`, those best on validation.

        `best` has the names of the plain model, which are others where an adapter renames while it trains.
        `evaluate` gives a model's validation scores. It may be asked about `student` with other weights.
        """
        return None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
