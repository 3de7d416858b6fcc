"""A transformer of a few thousand parameters and images that it can learn in a second."""

import os

import numpy as np
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer

from stochca.data.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(image_size=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
CLASSES = 3
DEVICE = torch.device(os.environ.get("STOCHCA_TEST_DEVICE", "cpu"))  # of tests that are for any device
EAGER = "aot_eager"  # finds and guards the graphs as inductor has them, and runs them without a compiler


class ColouredSquares:
    """Noisy squares; the class is the channel that is brightest."""

    def __init__(self, number: int, seed: int = 0, noise: float = 60.0) -> None:
        random = np.random.default_rng(seed)
        self.labels = [int(label) for label in random.integers(0, CLASSES, number)]
        self.pixels = random.normal(100, noise, (number, 16, 16, 3))
        for pixels, label in zip(self.pixels, self.labels, strict=True):
            pixels[..., label] += 25

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index].clip(0, 255).astype(np.uint8)), self.labels[index]


def tiny_vit(seed: int = 0, **options: object) -> VisionTransformer:
    defaults: dict[str, object] = {
        "img_size": 16,
        "patch_size": 8,
        "embed_dim": 16,
        "depth": 3,
        "num_heads": 2,
        "num_classes": CLASSES,
    }
    torch.manual_seed(seed)
    return VisionTransformer(**{**defaults, **options})
