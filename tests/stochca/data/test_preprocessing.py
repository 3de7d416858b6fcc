import random

import numpy as np
import pytest
import torch
from PIL import Image

from stochca.config.training import Augmentation
from stochca.data.preprocessing import Preprocessing
from stochca.errors import UserError
from tests.stochca.tiny import PREPROCESSING, tiny_vit


def test_evaluation_crops_the_centre_of_a_wide_image() -> None:
    image = Image.new("RGB", (48, 16), (255, 0, 0))
    image.paste((0, 255, 0), (16, 0, 32, 16))
    tensor = PREPROCESSING.evaluation()(image)
    assert tensor.shape == (3, 16, 16)
    torch.testing.assert_close(tensor[1], torch.ones(16, 16))
    torch.testing.assert_close(tensor[0], -torch.ones(16, 16))


def test_a_square_is_made_first_and_its_centre_evaluated() -> None:
    preprocessing = Preprocessing(16, (0.0,) * 3, (1.0,) * 3, resize=24)
    image = Image.new("RGB", (240, 48), (0, 0, 0))
    image.paste((255, 0, 0), (40, 8, 200, 40))  # of the square of 24 pixels, the middle 16
    tensor = preprocessing.evaluation()(image)
    assert tensor.shape == (3, 16, 16)
    assert tensor[0, 1:-1, 1:-1].min() > 0.99  # at the rim the resizing blurs
    cropped = preprocessing.training(Augmentation(crop="random", horizontal_flip=0.0))
    edges = set()
    for seed in range(40):
        random.seed(seed)
        torch.manual_seed(seed)
        crop = cropped(image)
        assert crop.shape == (3, 16, 16)
        edges.add((crop[0, 8, 0].item() > 0.5, crop[0, 8, -1].item() > 0.5))
    assert len(edges) >= 2  # not always the same place
    resized = torch.from_numpy(np.asarray(image.resize((24, 24), Image.Resampling.BICUBIC)) / 255).float()
    places = [
        torch.allclose(crop, resized[y : y + 16, x : x + 16].permute(2, 0, 1), atol=1e-6)
        for y in range(9)
        for x in range(9)
    ]
    assert any(places)  # a part of the square as it is, not resized again


def test_a_random_crop_needs_a_larger_square() -> None:
    with pytest.raises(UserError, match="set resize"):
        PREPROCESSING.training(Augmentation(crop="random"))


@pytest.mark.parametrize("policy", [None, "rand-m1-n0"])  # which does nothing itself
def test_grayscale_and_hue(policy: str | None) -> None:
    image = Image.new("RGB", (16, 16), (200, 40, 40))
    grey = PREPROCESSING.training(Augmentation(grayscale=1.0, horizontal_flip=0.0))(image)
    assert torch.allclose(grey[0], grey[1])
    hues = set()
    for seed in range(8):
        torch.manual_seed(seed)
        turned = PREPROCESSING.training(Augmentation(color_jitter=(0.0, 0.0, 0.0, 0.5), auto_augment=policy))(
            image
        )
        hues.add(int(turned[:, 8, 8].argmax()))
    assert len(hues) > 1  # red does not stay the strongest


def test_a_model_says_what_it_sees() -> None:
    """Made for smaller images than it was pretrained with."""
    model = tiny_vit()
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    model.pretrained_cfg = {
        "input_size": (3, 224, 224),
        "mean": mean,
        "std": std,
        "interpolation": "bilinear",
    }
    assert Preprocessing.of_model(model) == Preprocessing(16, mean, std, "bilinear")
