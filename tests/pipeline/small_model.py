"""A trained model of 0.3 million parameters, as a training stage would have written it, and images for it."""

from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

from pipeline.training.saved_model import save_trained
from stochca._typing import TimmModule
from tests.pipeline.backbone_card import backbone_card

SIZE = 32
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
CLASSES = ["cat", "dog", "Éléphant & 鼠"]


def save_small_model(
    folder: Path,
    architecture: str = "test_vit",
    *,
    classes: list[str] | None = None,
    global_pool: str | None = None,
    interpolation: str = "bicubic",
) -> TimmModule:
    """Write a random model into `folder`; gives the model itself, in evaluation mode."""
    classes = CLASSES if classes is None else classes
    options = {} if global_pool is None else {"global_pool": global_pool, "fc_norm": False}
    torch.manual_seed(0)
    model = timm.create_model(architecture, img_size=SIZE, num_classes=len(classes), **options)
    torch.nn.init.normal_(model.head.weight, std=0.5)  # timm's are so small that every class is as likely
    card = backbone_card(
        architecture=architecture,
        blocks=len(model.blocks),
        image_size=SIZE,
        global_pool=model.global_pool,
        mean=MEAN,
        std=STD,
        interpolation=interpolation,
    )
    folder.mkdir(parents=True)
    save_trained(
        folder, model, card, name=folder.name, method="finetune", classes=classes, mlflow_run_id="none"
    )
    return model.eval()


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours, so that decoders and resizing change them little; every seed its own."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
