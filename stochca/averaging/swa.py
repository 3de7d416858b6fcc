"""Stochastic weight averaging (Izmailov et al., UAI 2018)."""

import copy
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_swa_avg_fn

from stochca._typing import TimmModule
from stochca.averaging.averaging import Averaging, Evaluate, Weights
from stochca.config.averaging.swa import Swa


class TailAverage(Averaging):
    """The uniform mean of the weights after every step of the last part of training.

    The statistics of batch normalisation are averaged along; the paper takes
    them anew in another pass over the training images.
    """

    def __init__(self, config: Swa, student: TimmModule, steps: int) -> None:
        super().__init__(config, student, steps)
        self.start = int(config.start * steps)
        self.average = AveragedModel(student, avg_fn=_averaged, use_buffers=True)

    @property
    def started(self) -> bool:
        return int(self.average.n_averaged) > 0

    def after_step(self, student: TimmModule, step: int) -> None:
        if step > self.start:
            self.average.update_parameters(student)

    def evaluated(self, student: TimmModule) -> nn.Module:
        return self.average.module if self.started else student

    def finish(self, student: TimmModule, best: Weights, evaluate: Evaluate) -> Weights | None:
        self.notes.append(f"SWA averaged the last {int(self.average.n_averaged)} steps.")
        return copy.deepcopy(self.average.module.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average.load_state_dict(state["average"])


_running_mean = get_swa_avg_fn()


def _averaged(average: Tensor, new: Tensor, number: Tensor | int) -> Tensor:
    """The mean with one more; of whole numbers, such as indices of positions, there is none to take."""
    return _running_mean(average, new, number) if average.is_floating_point() else new
