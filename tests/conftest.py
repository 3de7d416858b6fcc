import torch

import stochca  # noqa: F401  (before timm, which it lets import torchvision)

torch.set_num_threads(1)  # the models are tiny; more threads only wait for each other
