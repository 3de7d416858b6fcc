import signal

import torch

import stochca  # noqa: F401  (before timm, which it lets import torchvision)

torch.set_num_threads(1)  # the models are tiny; more threads only wait for each other

# A shell starts background jobs with Ctrl-C ignored; the tests that send it need Python's own handler.
signal.signal(signal.SIGINT, signal.default_int_handler)
