"""Images to batches. Training batches are a pure function of seed and step, so a run can resume exactly."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Groups:
    """Images by what batches hold equally many of."""

    members: list[Indices]
    shuffled: bool = False  # whether they take turns in another order each time

    @classmethod
    def of(
        cls, number: int, settings: Training, domains: Sequence[str] | None, labels: np.ndarray | None
    ) -> "_Groups":
        """The images of each domain, the domains by name, or of each label; else all together."""
        keys: Sequence[Any] | np.ndarray | None = domains if labels is None else labels
        if keys is None or not len(keys):
            return cls([range(number)])
        groups = np.asarray(keys)
        members: list[Indices] = [np.flatnonzero(groups == key) for key in np.unique(groups)]
        return cls(members, shuffled=labels is not None or settings.augmentation.mixes)


def _order(
    groups: _Groups, settings: Training, steps: range, *, seed: int, rank: int = 0, ranks: int = 1
) -> Iterator[list[tuple[int, int]]]:
    """A rank's images of each of `steps`, which count from 0, each with the seed of its augmentation.

    One shuffled epoch after the other, cut into full batches. Several groups take turns, an image of each,
    and every group has epochs of its own. Where an image stands among those of all ranks decides its
    augmentation.
    """
    members = groups.members

    @lru_cache(len(members))  # images are asked for in order
    def shuffled(group: int, epoch: int) -> Tensor:
        return _shuffled(len(members[group]), seed, Stream.ORDER, epoch * len(members) + group)

    @lru_cache(1)
    def turns(number: int) -> Sequence[int]:
        # Mixup pairs images by their place in the batch: in one fixed order always the same groups.
        in_order = range(len(members))
        return _shuffled(len(members), seed, Stream.TURNS, number).tolist() if groups.shuffled else in_order

    def image(position: int) -> int:
        number, turn = divmod(position, len(members))
        group = turns(number)[turn]
        epoch, place = divmod(number, len(members[group]))
        return int(members[group][int(shuffled(group, epoch)[place])])

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


def _shuffled(number: int, *seed: int) -> Tensor:
    return torch.randperm(number, generator=torch.Generator().manual_seed(derived_seed(*seed)))


def training_batches(
    images: Images,
    preprocessing: Preprocessing,
    settings: Training,
    *,
    domains: Sequence[str] | None = None,
    labels: np.ndarray | None = None,
    seed: int,
    steps: int,
    start: int = 0,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (B, 3, size, size) and labels (B,) of each step after `start`, up to `steps`.

    B = batch_size / ranks.

    With `domains`, one per image, every batch holds equally many images of each; their number must divide
    `batch_size`. With `labels` (N,) instead, classes come equally often: each once, in random order, before
    any comes again. Together the ranks get the images that one alone would, augmented alike; `accumulate`
    times `ranks` must divide `batch_size`.
    """
    transform = BatchTransform(preprocessing.training(settings.augmentation))
    augmented = Augmented(images, transform)
    groups, left = _Groups.of(len(images), settings, domains, labels), range(start, steps)
    order = _order(groups, settings, left, seed=seed, rank=rank, ranks=ranks)
    yield from DataLoader(
        augmented, batch_sampler=order, collate_fn=transform.collate, **_loading(settings.workers)
    )


def images_of_step(
    number: int,
    settings: Training,
    *,
    domains: Sequence[str] | None = None,
    labels: np.ndarray | None = None,
    seed: int,
    step: int,
) -> list[int]:
    """Which of so many images `training_batches` gives all ranks together for `step`, counted from 1."""
    groups = _Groups.of(number, settings, domains, labels)
    order = _order(groups, settings, range(step - 1, step), seed=seed)
    return [index for index, _ in next(order)]


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
