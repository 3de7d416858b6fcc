"""The exponential moving average of the weights."""

from typing import Any

from timm.utils import ModelEmaV3
from torch import nn

from stochca._typing import TimmModule
from stochca.averaging.averaging import Averaging
from stochca.config.averaging.ema import Ema


class ExponentialAverage(Averaging):
    """timm's exponential moving average; it is what is evaluated, and its own best is kept."""

    def __init__(self, config: Ema, student: TimmModule, steps: int) -> None:
        super().__init__(config, student, steps)
        self.average = ModelEmaV3(student, decay=config.decay, use_warmup=True)

    def before_training(self, student: TimmModule) -> None:
        self.average.module.load_state_dict(student.state_dict())

    def after_step(self, student: TimmModule, step: int) -> None:
        self.average.update(student, step)

    def evaluated(self, student: TimmModule) -> nn.Module:
        return self.average.module

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average.module.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average.module.load_state_dict(state["average"])
