import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are tiny; more threads only wait for each other

import pytest
import torch

import stochca  # noqa: F401  (before timm, which it lets import torchvision)

torch.set_num_threads(1)

# A shell starts background jobs with Ctrl-C ignored; the tests that send it need Python's own handler.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", autouse=True)
def no_address_of_mlflow() -> None:
    """MLflow leaves the address it is given in the environment, where commands of the next file find it."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
