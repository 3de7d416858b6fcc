"""Random states: drawn from seeds, kept out of each other's way, saved and restored."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import numpy as np
import torch


class Stream(IntEnum):
    """The independent streams of randomness of a run; each is seeded from the run's seed and its number."""

    GLOBAL = 0  # dropout and stochastic depth
    ORDER = 1  # of the images, per epoch
    IMAGE = 2  # augmentation, per position in the order
    MIX = 3  # mixup and cutmix, per step
    DRAWS = 4  # the blocks that cross-attend
    TURNS = 5  # in which classes come, once per turn of all


def derived_seed(*parts: int) -> int:
    """A seed that depends on all of `parts` and on nothing else."""
    # The length goes in too, because SeedSequence pads with zeros: (1,) and (1, 0) would be one seed.
    return int(np.random.SeedSequence((len(parts), *parts)).generate_state(1, np.uint64)[0] >> 1)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, on every device."""
    reseed(seed)
    torch.manual_seed(seed)


def reseed(seed: int) -> None:
    """Seed what augmentation draws from: Python, NumPy and torch on the CPU."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


@contextmanager
def untouched() -> Iterator[None]:
    """Whatever is drawn inside: afterwards the CPU's generators go on as if nothing had happened."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Randomness from `seed` inside; outside, the CPU's generators go on as if nothing had happened."""
    with untouched():
        reseed(seed)
        yield


def random_state(device: torch.device) -> dict[str, Any]:
    """The states of Python's, NumPy's, torch's and the device's generators, as tensors and plain values."""
    module = _device_module(device)
    version, python_state, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": torch.tensor(python_state, dtype=torch.int64),
        "python_rest": [version, gauss],
        "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "numpy_rest": [int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "device": None if module is None else module.get_rng_state(*_which(device)),
    }


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Put back what `random_state` gave."""
    version, gauss = state["python_rest"]
    random.setstate((version, tuple(state["python"].tolist()), gauss))
    position, has_gauss, cached = state["numpy_rest"]
    np.random.set_state(("MT19937", state["numpy"].numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    module = _device_module(device)
    if module is not None and state["device"] is not None:
        module.set_rng_state(state["device"], *_which(device))


def _device_module(device: torch.device) -> Any:
    """`torch.cuda`, `torch.mps` and the like; None for the CPU, whose generator is torch's own."""
    return None if device.type == "cpu" else torch.get_device_module(device)


def _which(device: torch.device) -> list[torch.device]:
    """What the generator of `device` is asked for by, where there may be several of its kind."""
    return [] if device.type == "mps" else [device]
