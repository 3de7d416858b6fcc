"""Images to batches. Training batches are a pure function of seed and step, so a run can resume exactly."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

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


class _Order(Sampler[list[tuple[int, int]]]):
    """A rank's images of every step: one shuffled epoch after the other, cut into full batches.

    With several domains every batch holds equally many images of each, which has epochs of its own.
    Where an image stands among those of all ranks decides its augmentation.
    """

    def __init__(
        self, domains: list[Indices], settings: Training, seed: int, start: int, rank: int, ranks: int
    ) -> None:
        self.domains, self.seed, self.start = domains, seed, start
        self.rank, self.ranks = rank, ranks
        self.batch_size, self.accumulate, self.steps = (
            settings.batch_size,
            settings.accumulate,
            settings.steps,
        )

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        shuffled = [_Shuffled(images, self._epoch_seed(i)) for i, images in enumerate(self.domains)]
        for step in range(self.start, self.steps):
            first = step * self.batch_size
            yield self._share(
                [
                    (
                        shuffled[position % len(shuffled)][position // len(shuffled)],
                        derived_seed(self.seed, Stream.IMAGE, position),
                    )
                    for position in range(first, first + self.batch_size)
                ]
            )

    def _epoch_seed(self, domain: int) -> Callable[[int], int]:
        return lambda epoch: derived_seed(self.seed, Stream.ORDER, epoch * len(self.domains) + domain)

    def _share(self, batch: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """This rank's part of each micro-batch, one after the other."""
        size = self.batch_size // self.accumulate
        parts = [batch[first : first + size] for first in range(0, self.batch_size, size)]
        return [key for part in parts for key in batch_share(part, self.rank, self.ranks)]

    def __len__(self) -> int:
        return self.steps - self.start


class _Shuffled:
    """Images in one shuffled epoch after the other, without end; asked for in order, mostly."""

    def __init__(self, images: Indices, seed_of: Callable[[int], int]) -> None:
        self.images, self.seed_of = images, seed_of
        self.epoch, self.order = -1, torch.empty(0)

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, len(self.images))
        if epoch != self.epoch:
            generator = torch.Generator().manual_seed(self.seed_of(epoch))
            self.epoch, self.order = epoch, torch.randperm(len(self.images), generator=generator)
        return int(self.images[int(self.order[place])])


def training_batches(
    images: Images,
    preprocessing: Preprocessing,
    settings: Training,
    *,
    domains: Sequence[str] | None = None,
    seed: int,
    start: int = 0,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (B, 3, size, size) and labels (B,) for the steps from `start` on; B = batch_size / ranks.

    With `domains`, one per image, every batch holds equally many images of each; their number must divide
    `batch_size`. Together the ranks get the images that one alone would, augmented alike; `accumulate`
    times `ranks` must divide `batch_size`.
    """
    transform = BatchTransform(preprocessing.training(settings.augmentation))
    augmented = Augmented(images, transform)
    order = _Order(_by_domain(len(images), domains), settings, seed, start, rank, ranks)
    return iter(
        DataLoader(augmented, batch_sampler=order, collate_fn=transform.collate, **_loading(settings.workers))
    )


def images_of_step(
    number: int, settings: Training, *, domains: Sequence[str] | None = None, seed: int, step: int
) -> list[int]:
    """Which of so many images `training_batches` gives all ranks together for `step`, counted from 1."""
    order = _Order(_by_domain(number, domains), settings, seed, step - 1, rank=0, ranks=1)
    return [index for index, _ in next(iter(order))]


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
