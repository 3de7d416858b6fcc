import warnings
from typing import Any

import pytest
import torch
from torch import nn

import stochca
from stochca.errors import UserError
from stochca.timm_models.normalisation import renormalise
from tests.stochca.tiny import tiny_vit

OWN = ((0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
GIVEN = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def normalised(pixels: torch.Tensor, statistics: tuple[tuple[float, ...], ...]) -> torch.Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in statistics)
    return (pixels - mean) / std


@pytest.mark.parametrize("options", [{}, {"pre_norm": True}])  # CLIP's patch embedding has no bias
def test_a_model_sees_what_it_was_trained_to_see(options: dict[str, Any]) -> None:
    model = tiny_vit(**options).eval()
    pixels = torch.rand(4, 3, 16, 16)
    expected = model.patch_embed(normalised(pixels, OWN))
    assert not torch.allclose(model.patch_embed(normalised(pixels, GIVEN)), expected, atol=1e-3)
    renormalise(model, OWN, GIVEN)
    found = model.patch_embed(normalised(pixels, GIVEN))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_same_normalisation_changes_nothing() -> None:
    model, other = tiny_vit(pre_norm=True), tiny_vit(pre_norm=True)
    renormalise(model, OWN, OWN)
    assert all(value.equal(other.state_dict()[name]) for name, value in model.state_dict().items())


def test_models_that_begin_otherwise_are_refused() -> None:
    model = tiny_vit()
    model.patch_embed.proj = nn.Conv2d(3, 16, 8, stride=8, padding=1)
    with pytest.raises(UserError, match="normalised in another way"):
        renormalise(model, OWN, GIVEN)


def test_a_teacher_that_sees_images_in_another_way_is_told_of() -> None:
    student, teacher = tiny_vit(), tiny_vit(seed=1)
    student.pretrained_cfg = {"mean": list(GIVEN[0]), "std": list(GIVEN[1])}
    teacher.pretrained_cfg = {"mean": OWN[0], "std": OWN[1], "architecture": "vit"}
    with pytest.warns(
        UserWarning, match=r"images normalised .* make up for it with .*renormalise\(teacher, "
    ):
        stochca.StochCA(student, teacher=teacher)
    renormalise(teacher, OWN, GIVEN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stochca.StochCA(student, teacher=teacher)
        stochca.StochCA(student, teacher=tiny_vit(seed=1))  # which does not say
    assert teacher.pretrained_cfg["architecture"] == "vit"
