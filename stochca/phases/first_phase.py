"""What happens before the training loop."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from stochca._typing import TimmModule
from stochca.data.examples import Examples
from stochca.errors import UserError
from stochca.phases.linear_head import linear_heads


@dataclass(frozen=True)
class ClassTexts:
    """What a CLIP's text encoder makes of the names of the classes, and how images get there."""

    texts: Tensor  # (classes, E), of any length
    projection: Tensor  # (E, D): the weight of the visual tower's head; D pooled features
    bias: Tensor | None = None  # (E,): its bias
    scale: float = 100.0  # CLIP's logit scale

    def check(self, student: TimmModule) -> None:
        """Raise `UserError` unless they suit the student's head."""
        (head, *others) = linear_heads(student)
        if others:
            raise UserError("the texts of classes need one head, found a distilled model with two")
        found = (len(self.texts), self.texts.shape[1], self.projection.shape[1])
        if found != (head.out_features, len(self.projection), head.in_features):
            raise UserError(
                f"{found[0]} texts of {found[1]} numbers and a projection from "
                f"{found[2]} to {len(self.projection)} don't suit a head from {head.in_features} features "
                f"to {head.out_features} classes; use the text encoder that belongs to the backbone"
            )


class FirstPhase:
    """Changes a model before the loop trains it; as it stands here, nothing happens."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def check(self, student: TimmModule, class_texts: ClassTexts | None) -> None:
        """Raise `UserError` if the model does not suit. Costs next to nothing."""

    def run(
        self, student: TimmModule, examples: Examples, class_texts: ClassTexts | None, *, refit: bool
    ) -> str | None:
        """Change `student` in place; returns a sentence about it, or None.

        With `refit`, what has been chosen by the validation images is learned from them too.
        """
        return None
