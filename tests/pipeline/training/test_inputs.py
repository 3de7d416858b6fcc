"""Other pretrained models as teachers: prepared with the backbone, loaded for the student's images."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from pipeline.backbone import make_backbones
from pipeline.config.params import Backbone, Params, load_params
from pipeline.training.inputs import load_teacher, teacher_card
from stochca.backbones.card import BackboneCard
from stochca.config import Method, StochasticCrossAttention
from stochca.data.preprocessing import Preprocessing
from stochca.errors import UserError

METHOD = Method(attention=StochasticCrossAttention(teacher="other"))


def weights(folder: Path, name: str, seed: int) -> Backbone:
    torch.manual_seed(seed)
    path = folder / f"{name}-{seed}.safetensors"
    save_file(timm.create_model(name, num_classes=0).state_dict(), path)
    return Backbone(name=name, weights=f"file:{path}")


def params(backbone: Backbone, **teachers: Backbone) -> Params:
    return load_params().model_copy(
        update={"image_size": 32, "resize": None, "backbone": backbone, "teachers": teachers}
    )


def test_a_teacher_lies_in_the_backbones_folder(tmp_path: Path) -> None:
    own, other = weights(tmp_path, "test_vit", 0), weights(tmp_path, "test_vit", 1)
    target = tmp_path / "backbone"
    card = make_backbones(params(own, other=other), target)
    assert card == BackboneCard.from_file(target / "card.json")
    found = teacher_card(METHOD, target)
    assert found is not None
    assert found.source == other.weights
    teacher = load_teacher(METHOD, target, Preprocessing.of(card))
    assert teacher is not None
    source = load_file(other.weights.removeprefix("file:"))
    for name, value in teacher.blocks.state_dict().items():
        assert value.equal(source[f"blocks.{name}"])
    make_backbones(params(own), target)
    assert not (target / "teachers").exists()


def test_it_sees_the_students_images_as_its_own(tmp_path: Path) -> None:
    own = weights(tmp_path, "test_vit", 0)
    target = tmp_path / "backbone"
    card = make_backbones(params(own, other=own), target)
    shifted = Preprocessing(32, mean=(0.1, 0.2, 0.3), std=(0.9, 0.8, 0.7))
    plain, adapted = (load_teacher(METHOD, target, one) for one in (Preprocessing.of(card), shifted))
    assert plain is not None
    assert adapted is not None
    pixels = torch.rand(2, 3, 32, 32)

    def seen(model: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
        mean_C11, std_C11 = (torch.tensor(values)[:, None, None] for values in (mean, std))
        return model.eval()((pixels - mean_C11) / std_C11)

    torch.testing.assert_close(
        seen(adapted, shifted.mean, shifted.std), seen(plain, card.mean, card.std), rtol=1e-4, atol=1e-5
    )


def test_without_a_teachers_name_there_is_none(tmp_path: Path) -> None:
    for method in (Method(), Method(attention=StochasticCrossAttention())):
        assert load_teacher(method, tmp_path, Preprocessing(32, (0.5,) * 3, (0.5,) * 3)) is None


def test_another_shape_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    own = weights(tmp_path, "test_vit", 0)
    wide = Backbone(name="test_vit2", weights="file:nowhere.safetensors")
    with pytest.raises(UserError, match=r"teachers.wide: the teacher differs from the student: .*block"):
        make_backbones(params(own, wide=wide), tmp_path / "backbone")
    missing = own.model_copy(update={"weights": "file:nowhere.safetensors"})
    with pytest.raises(UserError, match=r"teachers.gone: .*there is no such file"):
        make_backbones(params(own, gone=missing), tmp_path / "backbone")
    assert not list(tmp_path.glob("*backbone*"))
