"""The images that something is learned from before training, and how to load them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from stochca.config.selection import Selection
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
    selection: Selection = "accuracy"  # the metric that choices are made by
    class_weights: Tensor | None = None  # (classes,) of a batch's loss; None: all count the same
    class_weights_of_images: Tensor | None = None  # likewise, where every image is seen once
