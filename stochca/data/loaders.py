"""Images to batches. Training batches are a pure function of seed and step, so a run can resume exactly."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from timm.data.transforms import RandomCropOrPad, str_to_pil_interp
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from stochca.compute.cores import cores_of_process
from stochca.compute.randomness import Stream, derived_seed
from stochca.config.training import Augmentation, Training
from stochca.data.batching import Augmented, BatchTransform, Plain
from stochca.errors import UserError

if TYPE_CHECKING:
    from stochca.backbones.card import BackboneCard

Item = TypeVar("Item")
Indices = range | np.ndarray  # small, and shared with the processes that load images
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
    resize: int | None = None  # images become this square before the crop; None: their shape is kept

    @classmethod
    def of(cls, backbone: "BackboneCard") -> "Preprocessing":
        return cls(backbone.image_size, backbone.mean, backbone.std, backbone.interpolation, backbone.resize)

    @property
    def crop_pct(self) -> float:
        """The side of the centre crop, as a share of what images are resized to; timm's name for it."""
        if self.resize is None:
            return 1.0
        return self.image_size / (self.resize + 0.5)  # timm divides by it and rounds down

    @property
    def crop_mode(self) -> str:
        """timm's name for what is done to the shape of an image: `squash` makes it a square."""
        return "center" if self.resize is None else "squash"

    def evaluation(self) -> Callable[[Image.Image], Tensor]:
        """Resize, crop the centre, normalise; picture -> (3, size, size)."""
        return create_transform(
            self.image_size,
            is_training=False,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
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
            augmented = create_transform(
                self.image_size,
                is_training=True,
                scale=augmentation.scale,
                ratio=augmentation.ratio,
                hflip=augmentation.horizontal_flip,
                vflip=augmentation.vertical_flip,
                color_jitter=augmentation.color_jitter or None,
                grayscale_prob=augmentation.grayscale,
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
        if self.resize is not None:
            augmented.transforms.insert(0, Squash(self.resize, self.interpolation))
        if augmentation.crop == "random":
            if self.resize is None:
                raise UserError(
                    "training.augmentation.crop random cuts a part out of a larger image; set resize to that "
                    f"image's side, above image_size {self.image_size}, or choose random_resized"
                )
            augmented.transforms[1] = RandomCropOrPad(self.image_size)  # in place of timm's
        return augmented


@dataclass(frozen=True)
class Squash:
    """Makes an image a square, whatever its shape."""

    side: int
    interpolation: str

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.resize((self.side, self.side), str_to_pil_interp(self.interpolation))


class InMemory:
    """The same images, decoded once."""

    def __init__(self, items: Sequence[tuple[Image.Image, int]]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self._items[index]


def keep_in_memory(images: Images, reads: float = math.inf) -> Images:
    """Decode the images once and for all, where that takes less than `CACHE_BYTES`.

    Args:
        reads: how many the training loop will ask for; where that is less than an epoch, most are asked for
            at most once, and all are decoded when they are.
    """
    if len(images) == 0 or reads <= len(images):
        return images
    items: list[tuple[Image.Image, int]] = []
    taken = 0
    for i in range(len(images)):
        items.append(images[i])
        width, height = items[-1][0].size
        taken += 3 * width * height
        # Most sets are of one size, and too large a one is then found out at its first image.
        if (taken * len(images) if i == 0 else taken) > CACHE_BYTES:
            return images
    return InMemory(items)


def names_of(parts: Sequence[Images], indices: Sequence[int]) -> list[str]:
    """What these of the images of all parts together are called: by name where they have one."""
    names = [
        name
        for part in parts
        for name in getattr(part, "ids", None) or [f"image {i}" for i in range(len(part))]
    ]
    return [names[index] for index in indices]


class Joined:
    """The images of several collections, one after the other."""

    def __init__(self, *parts: Images) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        for part in self.parts:
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError("there are no more images")


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
