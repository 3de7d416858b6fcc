"""Pictures to batches: what draws random numbers, image by image; the rest, a whole batch at once."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from torchvision.transforms import Compose, Normalize, ToTensor
from torchvision.transforms.functional import normalize

from stochca.compute.randomness import reseed, untouched
from stochca.data.images import Images, in_rgb


class BatchTransform:
    """A transform of timm's in two parts: `of_image`, then `collate` for a batch of what that gave.

    Together they give, bit for bit, what `transform` gives image by image.
    """

    def __init__(self, transform: Compose) -> None:
        steps = list(transform.transforms)
        self._normalize: Normalize | None = None
        # Random erasing comes after these two, and draws: then nothing can be put off.
        if isinstance(steps[-1], Normalize) and isinstance(steps[-2], ToTensor):
            *steps, _, self._normalize = steps
        self.of_image: Callable[[Image.Image], Any] = Compose(steps)

    def collate(self, items: Sequence[tuple[Any, int]]) -> tuple[Tensor, Tensor]:
        """Images (B, 3, size, size) and labels (B,)."""
        images, labels = zip(*items, strict=True)
        return self._stacked(list(images)), default_collate(list(labels))

    def _stacked(self, images: list[Any]) -> Tensor:
        if self._normalize is None:
            return default_collate(images)
        bytes_BHWC = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
        values_BCHW = bytes_BHWC.permute(0, 3, 1, 2).to(
            torch.get_default_dtype(), memory_format=torch.contiguous_format
        )
        return normalize(values_BCHW.div_(255), self._normalize.mean, self._normalize.std, inplace=True)


class Plain(Dataset[tuple[Any, int]]):
    """Transforms images one by one, without randomness."""

    def __init__(self, images: Images, transform: BatchTransform) -> None:
        self.images = images
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = self.images[index]
        return self.transform.of_image(in_rgb(image)), label


class Augmented(Plain):
    """Transforms each image with randomness of its own, whichever process loads it."""

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[tuple[Any, int]]:
        """A batch, of images and their seeds; as a whole, because putting the generators back takes time."""
        items = []
        with untouched():
            for index, seed in keys:
                reseed(seed)
                items.append(self[index])
        return items
