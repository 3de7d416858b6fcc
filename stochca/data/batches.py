"""Images to batches. Training batches are a pure function of seed and step, so a run can resume exactly."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from stochca.compute.cores import cores_of_process
from stochca.compute.randomness import Stream, derived_seed
from stochca.config.training import Training
from stochca.data.batch_transform import Augmented, BatchTransform, Plain
from stochca.data.images import Images
from stochca.data.preprocessing import Preprocessing

Item = TypeVar("Item")
Indices = range | np.ndarray  # small, and shared with the processes that load images


def batch_share(batch: Sequence[Item], rank: int, ranks: int) -> list[Item]:
    """A rank's equal part of a micro-batch: as much from its front as from its back.

    Mixup and cutmix mix the first image of a batch with its last, the second with the last but one, and
    so on; this way the pairs of the whole are the pairs of the parts.
    """
    size = len(batch) // ranks
    front, back = size - size // 2, size // 2
    return [
        *batch[rank * front : (rank + 1) * front],
        *batch[len(batch) - (rank + 1) * back : len(batch) - rank * back],
    ]


def _order(
    domains: list[Indices], settings: Training, steps: range, *, seed: int, rank: int = 0, ranks: int = 1
) -> Iterator[list[tuple[int, int]]]:
    """A rank's images of each of `steps`, which count from 0, each with the seed of its augmentation.

    One shuffled epoch after the other, cut into full batches. With several domains every batch holds equally
    many images of each, which has epochs of its own. Where an image stands among those of all ranks decides
    its augmentation.
    """

    @lru_cache(len(domains))  # images are asked for in order
    def shuffled(domain: int, epoch: int) -> Tensor:
        own_seed = derived_seed(seed, Stream.ORDER, epoch * len(domains) + domain)
        generator = torch.Generator().manual_seed(own_seed)
        return torch.randperm(len(domains[domain]), generator=generator)

    def image(position: int) -> int:
        place, domain = divmod(position, len(domains))
        epoch, place = divmod(place, len(domains[domain]))
        return int(domains[domain][int(shuffled(domain, epoch)[place])])

    size = settings.batch_size // settings.accumulate
    for step in steps:
        first = step * settings.batch_size
        batch = [
            (image(position), derived_seed(seed, Stream.IMAGE, position))
            for position in range(first, first + settings.batch_size)
        ]
        # This rank's part of each micro-batch, one after the other.
        parts = [batch[begin : begin + size] for begin in range(0, settings.batch_size, size)]
        yield [key for part in parts for key in batch_share(part, rank, ranks)]


def training_batches(
    images: Images,
    preprocessing: Preprocessing,
    settings: Training,
    *,
    domains: Sequence[str] | None = None,
    seed: int,
    steps: int,
    start: int = 0,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (B, 3, size, size) and labels (B,) of each step after `start`, up to `steps`.

    B = batch_size / ranks.

    With `domains`, one per image, every batch holds equally many images of each; their number must divide
    `batch_size`. Together the ranks get the images that one alone would, augmented alike; `accumulate`
    times `ranks` must divide `batch_size`.
    """
    transform = BatchTransform(preprocessing.training(settings.augmentation))
    augmented = Augmented(images, transform)
    left = range(start, steps)
    order = _order(_by_domain(len(images), domains), settings, left, seed=seed, rank=rank, ranks=ranks)
    yield from DataLoader(
        augmented, batch_sampler=order, collate_fn=transform.collate, **_loading(settings.workers)
    )


def images_of_step(
    number: int, settings: Training, *, domains: Sequence[str] | None = None, seed: int, step: int
) -> list[int]:
    """Which of so many images `training_batches` gives all ranks together for `step`, counted from 1."""
    order = _order(_by_domain(number, domains), settings, range(step - 1, step), seed=seed)
    return [index for index, _ in next(order)]


def _by_domain(number: int, domains: Sequence[str] | None) -> list[Indices]:
    """The images of each domain, the domains by name; all together where there are none."""
    if not domains:
        return [range(number)]
    members: dict[str, list[int]] = {}
    for index, domain in enumerate(domains):
        members.setdefault(domain, []).append(index)
    return [np.array(members[name]) for name in sorted(members)]


def evaluation_batches(
    images: Images, preprocessing: Preprocessing, *, batch_size: int, workers: int | str = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every image once, in order, without augmentation."""
    transform = BatchTransform(preprocessing.evaluation())
    plain = Plain(images, transform)
    return iter(DataLoader(plain, batch_size=batch_size, collate_fn=transform.collate, **_loading(workers)))


def loader_processes(workers: int | str) -> int:
    """Processes that load images for this one; 0: it does so itself, between the steps."""
    cores = cores_of_process()
    # On two cores a loader process only takes time from the training step.
    return (0 if cores <= 2 else min(8, cores - 1)) if workers == "auto" else int(workers)


def _loading(workers: int | str) -> dict[str, Any]:
    return {
        "num_workers": loader_processes(workers),
        "pin_memory": torch.cuda.is_available(),
        # Of its own, so that starting a loader takes nothing from the run's randomness.
        "generator": torch.Generator(),
    }
