"""Images to batches. Training batches are a pure function of seed and step, so a run can resume exactly."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from stochca.devices import cores_of_process
from stochca.errors import UserError
from stochca.randomness import Stream, derived_seed, isolated
from stochca.settings import Augmentation, Training

if TYPE_CHECKING:
    from stochca.backbones import BackboneCard

Item = TypeVar("Item")
CACHE_BYTES = 1 << 30  # decoded images are kept in memory up to this size


class Images(Protocol):
    """Labelled images: `images[i]` is an RGB picture and its class."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image, int]: ...


@dataclass(frozen=True)
class Preprocessing:
    """What the backbone was trained to see."""

    image_size: int
    mean: tuple[float, ...]  # per channel
    std: tuple[float, ...]
    interpolation: str = "bicubic"

    @classmethod
    def of(cls, backbone: "BackboneCard") -> "Preprocessing":
        return cls(backbone.image_size, backbone.mean, backbone.std, backbone.interpolation)

    def evaluation(self) -> Callable[[Image.Image], Tensor]:
        """Resize the short side, crop the centre, normalise; picture -> (3, size, size)."""
        return create_transform(
            self.image_size,
            is_training=False,
            crop_pct=1.0,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
        )

    def training(self, augmentation: Augmentation) -> Callable[[Image.Image], Tensor]:
        """timm's random augmentation; picture -> (3, size, size).

        Raises:
            UserError: timm can't read the policy `auto_augment`.
        """
        try:
            return create_transform(
                self.image_size,
                is_training=True,
                scale=augmentation.scale,
                ratio=augmentation.ratio,
                hflip=augmentation.horizontal_flip,
                vflip=augmentation.vertical_flip,
                color_jitter=augmentation.color_jitter or None,
                auto_augment=augmentation.auto_augment,
                re_prob=augmentation.random_erasing,
                interpolation=self.interpolation,
                mean=self.mean,
                std=self.std,
            )
        except (AssertionError, ValueError, KeyError) as error:
            raise UserError(
                f"training.augmentation.auto_augment {augmentation.auto_augment!r} is no policy of timm "
                f"({error or type(error).__name__}); give one such as rand-m9-mstd0.5, augmix-m3 or null"
            ) from None


class InMemory:
    """The same images, decoded once."""

    def __init__(self, images: Images) -> None:
        self._items = [images[i] for i in range(len(images))]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self._items[index]


def keep_in_memory(images: Images) -> Images:
    """Decode the images once and for all, where that takes less than `CACHE_BYTES`."""
    if len(images) == 0:
        return images
    width, height = images[0][0].size
    return InMemory(images) if 3 * width * height * len(images) <= CACHE_BYTES else images


class _Augmented(Dataset[tuple[Tensor, int]]):
    """Transforms an image with randomness of its own, whichever process loads it."""

    def __init__(self, images: Images, transform: Callable[[Image.Image], Tensor]) -> None:
        self.images = images
        self.transform = transform

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        index, seed = key
        image, label = self.images[index]
        with isolated(seed):
            return self.transform(image), label


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

    Where an image stands among those of all ranks decides its augmentation.
    """

    def __init__(self, images: int, settings: Training, seed: int, start: int, rank: int, ranks: int) -> None:
        self.images, self.seed, self.start = images, seed, start
        self.rank, self.ranks = rank, ranks
        self.batch_size, self.accumulate, self.steps = (
            settings.batch_size,
            settings.accumulate,
            settings.steps,
        )

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        shuffled_epoch, order = -1, torch.empty(0)
        for step in range(self.start, self.steps):
            batch = []
            for position in range(step * self.batch_size, (step + 1) * self.batch_size):
                epoch, place = divmod(position, self.images)
                if epoch != shuffled_epoch:
                    generator = torch.Generator().manual_seed(derived_seed(self.seed, Stream.ORDER, epoch))
                    shuffled_epoch, order = epoch, torch.randperm(self.images, generator=generator)
                batch.append((int(order[place]), derived_seed(self.seed, Stream.IMAGE, position)))
            yield self._share(batch)

    def _share(self, batch: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """This rank's part of each micro-batch, one after the other."""
        size = self.batch_size // self.accumulate
        parts = [batch[first : first + size] for first in range(0, self.batch_size, size)]
        return [key for part in parts for key in batch_share(part, self.rank, self.ranks)]

    def __len__(self) -> int:
        return self.steps - self.start


def training_batches(
    images: Images,
    preprocessing: Preprocessing,
    settings: Training,
    *,
    seed: int,
    start: int = 0,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (B, 3, size, size) and labels (B,) for the steps from `start` on; B = batch_size / ranks.

    Together the ranks get the images that one alone would, augmented alike; `accumulate` times `ranks`
    must divide `batch_size`.
    """
    augmented = _Augmented(images, preprocessing.training(settings.augmentation))
    order = _Order(len(images), settings, seed, start, rank, ranks)
    return iter(DataLoader(augmented, batch_sampler=order, **_loading(settings.workers)))


class _Plain(Dataset[tuple[Tensor, int]]):
    def __init__(self, images: Images, transform: Callable[[Image.Image], Tensor]) -> None:
        self.images = images
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.images[index]
        return self.transform(image), label


def evaluation_batches(
    images: Images, preprocessing: Preprocessing, *, batch_size: int, workers: int | str = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every image once, in order, without augmentation."""
    plain = _Plain(images, preprocessing.evaluation())
    return iter(DataLoader(plain, batch_size=batch_size, **_loading(workers)))


def _loading(workers: int | str) -> dict[str, Any]:
    cores = cores_of_process()
    # On two cores a loader process only takes time from the training step.
    number = (0 if cores <= 2 else min(8, cores - 1)) if workers == "auto" else int(workers)
    return {
        "num_workers": number,
        "pin_memory": torch.cuda.is_available(),
        # Of its own, so that starting a loader takes nothing from the run's randomness.
        "generator": torch.Generator(),
    }
