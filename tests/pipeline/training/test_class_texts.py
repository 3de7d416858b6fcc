"""A head from the names of classes, with a tiny text encoder in place of open_clip's."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.backbone import make_backbone
from pipeline.config.params import Backbone
from pipeline.training import class_texts
from pipeline.training.class_texts import class_texts_of, readable
from stochca.backbones.loading import load_source_head
from stochca.config import Method, ZeroShot
from stochca.data.preprocessing import Preprocessing
from stochca.errors import UserError

SPACE = 5
CLASSES = ["001.black_cat", "dog"]
METHOD = Method(phases=ZeroShot(template="a drawing of a {}, small"))


class LetterEncoder:
    """A text is the sum of random vectors, one for each of its letters."""

    scale = 30.0

    def __init__(self, name: str) -> None:
        assert name == "letters/none"

    def encode(self, texts: Sequence[str]) -> Tensor:
        table = torch.randn(128, SPACE, generator=torch.Generator().manual_seed(4))
        return torch.stack([table[[ord(letter) for letter in text]].sum(dim=0) for text in texts])


def backbone(folder: Path, head: int = SPACE) -> tuple[Path, dict[str, Tensor]]:
    torch.manual_seed(0)
    weights = timm.create_model("test_vit", num_classes=head).state_dict()
    save_file(weights, folder / "weights.safetensors")
    source = Backbone(name="test_vit", weights=f"file:{folder / 'weights.safetensors'}")
    make_backbone(source, 32, folder / "backbone")
    return folder / "backbone", weights


def test_names_are_read_as_words() -> None:
    assert [readable(name) for name in ("002.Laysan_Albatross", "dog", "T-34.2")] == [
        "Laysan Albatross",
        "dog",
        "T-34.2",
    ]


def test_texts_and_projection_are_those_of_the_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_texts, "OpenClip", LetterEncoder)
    folder, weights = backbone(tmp_path)
    named = Method(phases=ZeroShot(template="a drawing of a {}, small", text_encoder="letters/none"))
    found = class_texts_of(named, CLASSES, folder)
    assert found is not None
    expected = LetterEncoder("letters/none").encode(
        ["a drawing of a black cat, small", "a drawing of a dog, small"]
    )
    assert found.texts.equal(expected)
    assert found.projection.equal(weights["head.weight"])
    assert found.bias is not None
    assert found.bias.equal(weights["head.bias"])
    assert found.scale == 30.0


def test_other_first_phases_need_no_texts(tmp_path: Path) -> None:
    assert class_texts_of(Method(), CLASSES, tmp_path) is None


def test_a_backbone_without_a_projection_is_refused(tmp_path: Path) -> None:
    folder, _ = backbone(tmp_path, head=0)
    with pytest.raises(UserError, match=r"a CLIP backbone with its projection, but file:.* holds no head"):
        class_texts_of(METHOD, CLASSES, folder)


def test_a_backbone_that_is_no_clip_has_no_text_encoder(tmp_path: Path) -> None:
    folder, _ = backbone(tmp_path)
    with pytest.raises(UserError, match="needs a CLIP backbone, and test_vit is none"):
        class_texts_of(METHOD, CLASSES, folder)


def test_without_open_clip_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    folder, _ = backbone(tmp_path)
    named = Method(phases=ZeroShot(text_encoder="ViT-B-16-quickgelu/openai"))
    with pytest.raises(UserError, match="needs the package open_clip_torch; install it: pip install"):
        class_texts_of(named, CLASSES, folder)


def test_clips_own_normalisation_reaches_the_images(tmp_path: Path) -> None:
    """The reference code normalises CLIP's inputs as ImageNet's. Its projection is no classifier."""
    from PIL import Image

    name = "vit_xsmall_patch16_clip_224.tinyclip_yfcc15m"
    weights = tmp_path / "clip.safetensors"
    save_file(timm.create_model(name).state_dict(), weights)
    card = make_backbone(Backbone(name=name, weights=f"file:{weights}"), 32, tmp_path / "backbone")
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    assert (card.mean, card.std, card.source_classes) == (mean, std, 512)
    assert load_source_head(tmp_path / "backbone") is None
    grey = Preprocessing.of(card).evaluation()(Image.new("RGB", (32, 32), (51, 102, 153)))
    expected = [(value - m) / s for value, m, s in zip((0.2, 0.4, 0.6), mean, std, strict=True)]
    assert grey[:, 7, 9].tolist() == pytest.approx(expected, abs=1e-5)
