import torch

import stochca  # noqa: F401  (before timm, which it lets import torchvision)

torch.set_num_threads(2)
