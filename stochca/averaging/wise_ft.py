"""WiSE-FT (Wortsman et al., CVPR 2022): the weights between the first step and the last."""

from typing import Any

from stochca._typing import TimmModule
from stochca.averaging.averaging import Averaging, Evaluate, Weights
from stochca.compute.checkpoint import cloned
from stochca.config.averaging.wise_ft import WiseFt


class WeightInterpolation(Averaging):
    """(1 - alpha) of the weights at the first step plus alpha of those that validation chose."""

    def __init__(self, config: WiseFt, student: TimmModule, steps: int) -> None:
        super().__init__(config, student, steps)
        self.alphas = config.alphas
        self.start: Weights = {}

    def before_training(self, student: TimmModule) -> None:
        self.start = cloned(student.state_dict())

    def finish(self, student: TimmModule, best: Weights, evaluate: Evaluate) -> Weights | None:
        tuned = cloned(best)
        if len(self.alphas) == 1:
            self.notes.append(f"WiSE-FT kept alpha {self.alphas[0]:g}.")
            return interpolated(self.start, tuned, self.alphas[0])
        seen = []
        for alpha in self.alphas:
            student.load_state_dict(interpolated(self.start, tuned, alpha))
            seen.append((evaluate(student), alpha))
        chosen = max((scores.merit, alpha) for scores, alpha in seen)[-1]
        values = ", ".join(f"{alpha:g}: {scores.value:.3f}" for scores, alpha in seen)
        self.notes.append(f"WiSE-FT kept alpha {chosen:g}, the best on validation ({values}).")
        return interpolated(self.start, tuned, chosen)

    def state_dict(self) -> dict[str, Any]:
        return {"start": self.start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.start = state["start"]


def interpolated(start: Weights, end: Weights, alpha: float) -> Weights:
    """(1 - alpha) · start + alpha · end; what is no floating-point number is taken from `end`."""
    return {
        name: start[name].lerp(value, alpha) if value.is_floating_point() else value
        for name, value in end.items()
    }
