"""The images that something is learned from before training, and how to load them."""

from dataclasses import dataclass

import torch

from stochca.data.images import Images
from stochca.data.preprocessing import Preprocessing


@dataclass(frozen=True)
class Examples:
    """Training images, the images that choices are made by, and the device that looks at them."""

    train: Images
    validation: Images
    preprocessing: Preprocessing
    device: torch.device
    precision: str = "fp32"
    workers: int | str = 0
