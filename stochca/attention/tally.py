"""How often each block has cross-attended while training."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Tally:
    """Counts training forwards, and of each block the share of their images that cross-attended."""

    def __init__(self, num_blocks: int) -> None:
        self.forwards = 0
        self.crossed = torch.zeros(num_blocks, dtype=torch.float64)

    def count(self, drawn: Mapping[int, Tensor | None]) -> None:
        """One forward in which these blocks cross-attended, for the images of a boolean (B,) or for all."""
        self.forwards += 1
        for block, chosen in drawn.items():
            self.crossed[block] += 1 if chosen is None else chosen.double().mean()

    @property
    def shares(self) -> list[float]:
        """Of each block the share of the training images that cross-attended in it."""
        return (self.crossed / max(1, self.forwards)).tolist()

    def state_dict(self) -> dict[str, Any]:
        return {"forwards": self.forwards, "crossed": self.crossed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.forwards, self.crossed = state["forwards"], state["crossed"].cpu()
