"""What is said of names whose weights want something else, by what timm's authors note of them."""

from pathlib import Path

import pytest
import timm

from pipeline.backbone import make_backbone
from pipeline.config.params import Backbone
from pipeline.weights.remarks import remarks
from stochca.errors import UserError


@pytest.mark.parametrize(
    ("name", "weights", "said"),
    [
        ("vit_base_patch16_clip_224.openai", "hub", ["vit_base_patch16_clip_quickgelu_224.openai"]),
        ("vit_base_patch16_clip_224.openai", "file:a.pt", ["vit_base_patch16_clip_quickgelu_224.openai"]),
        ("vit_base_patch16_clip_quickgelu_224.openai", "hub", []),
        ("vit_base_patch16_clip_224.laion2b", "hub", []),
        ("vit_large_patch14_clip_336", "file:a.pt", ["_quickgelu_336.openai", "patch14_clip_336.openai"]),
        ("vit_small_patch16_224", "file:a.pt", ["of dino, write that tag, as in vit_small_patch16_224.dino"]),
        ("vit_small_patch16_224", "hub", []),  # those of timm's first tag, and prepared for them
        ("vit_small_patch16_224.dino", "file:a.pt", []),
        ("vit_small_patch14_dinov2", "file:a.pt", []),
        ("test_vit", "file:a.pt", []),
    ],
)  # fmt: skip
def test_they_name_another_name(name: str, weights: str, said: list[str]) -> None:
    found = list(remarks(Backbone(name=name, weights=weights)))
    assert len(found) == len(said)
    for remark, part in zip(found, said, strict=True):
        assert remark.endswith(part)
        assert timm.is_model_pretrained(remark.split()[-1])


def test_they_are_in_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = Backbone(name="vit_small_patch16_224", weights=f"file:{tmp_path / 'none.pth'}")
    with pytest.raises(UserError, match=r"none\.pth"):
        make_backbone(missing, 32, tmp_path / "backbone")
    assert "backbone: vit_small_patch16_224 has no tag: images are prepared as for" in capsys.readouterr().out
