"""What happens before the training loop."""

from typing import Any

from stochca._typing import TimmModule
from stochca.data.examples import Examples
from stochca.phases.class_texts import ClassTexts


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
