import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import fgvc_aircraft
from pipeline.datasets.source import Source
from pipeline.images.decoding import UnusableImage
from pipeline.images.sizes import Sides
from stochca.errors import UserError
from tests.pipeline.datasets.miniatures import (
    SIDES,
    check_pictures,
    colour,
    found,
    lines,
    miniature,
    opened,
    pack,
    params,
    refused,
)

FACTS = miniature(fgvc_aircraft.FACTS, classes=4, train=3, val=3, test=3)
VARIANTS = {  # -> family, manufacturer
    "737-200": ("Boeing 737", "Boeing"),
    "737-300": ("Boeing 737", "Boeing"),
    "A380": ("A380", "Airbus"),
    "F/A-18": ("F/A-18", "McDonnell Douglas"),
}
IMAGES = {  # number -> variant, split
    "0034309": ("A380", "train"),
    "0034958": ("737-300", "train"),
    "0037511": ("F/A-18", "train"),
    "0037512": ("737-200", "val"),
    "0038598": ("737-300", "val"),
    "0038630": ("F/A-18", "val"),
    "0041419": ("737-200", "test"),
    "0043750": ("737-300", "test"),
    "0043890": ("A380", "test"),
}
LEVELS = {"variant": 0, "family": 1, "manufacturer": 2}


def names(level: str) -> list[str]:
    return sorted({(variant, *others)[LEVELS[level]] for variant, others in VARIANTS.items()})


def class_of(number: str, level: str) -> str:
    variant = IMAGES[number][0]
    return (variant, *VARIANTS[variant])[LEVELS[level]]


def photograph_with_banner(path: Path, number: int) -> None:
    """A picture of one colour above 20 rows of white, in which black is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (120, 100), "white")
    image.paste(colour(number), (0, 0, 120, 80))
    image.paste("black", (10, 85, 60, 95))
    image.save(path, quality=100, subsampling=0)


def write(root: Path) -> Path:
    data = root / "fgvc-aircraft-2013b" / "data"
    for level, plural in (("variant", "variants"), ("family", "families"), ("manufacturer", "manufacturers")):
        lines(data / f"{plural}.txt", *names(level))
        for split in ("train", "val", "test"):
            chosen = [number for number, (_, part) in IMAGES.items() if part == split]
            texts = [f"{number} {class_of(number, level)}" for number in chosen]
            lines(data / f"images_{level}_{split}.txt", *texts)
    for place, number in enumerate(IMAGES):
        photograph_with_banner(data / "images" / f"{number}.jpg", place)
    return root


def load(root: Path, level: str | None = None, sides: Sides = SIDES) -> Source:
    return fgvc_aircraft.load(params("fgvc_aircraft", root, source=level), sides, FACTS)


@pytest.mark.parametrize("level", ["variant", "family", "manufacturer"])
@pytest.mark.parametrize("packed", [False, True])
def test_classes_and_splits_are_the_official_ones(
    tmp_path: Path, level: str, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path / "raw")
    if packed:
        pack(root / "fgvc-aircraft-2013b.tar.gz", root, "fgvc-aircraft-2013b")
        shutil.rmtree(root / "fgvc-aircraft-2013b")
    monkeypatch.setattr(fgvc_aircraft, "COARSER", {"family": 3, "manufacturer": 3})
    source = load(root, level)
    assert source.classes == names(level)
    assert found(source) == {
        f"images/{number}.jpg": (class_of(number, level), split) for number, (_, split) in IMAGES.items()
    }
    check_pictures(source, {f"images/{number}.jpg": place for place, number in enumerate(IMAGES)})


@pytest.mark.parametrize("stored", [64, 200])
def test_the_banner_is_gone_before_images_are_made_small(tmp_path: Path, stored: int) -> None:
    source = load(write(tmp_path / "raw"), sides=Sides(image=56, stored=stored))
    for place, record in enumerate(source.records()):
        image = opened(record)
        assert image.size == ((96, 64) if stored == 64 else (120, 80))
        difference = np.abs(np.asarray(image, dtype=int) - colour(place))
        assert difference.max() < 12, record.id  # not a single row of it is left
    narrow = io.BytesIO()
    Image.new("RGB", (50, 20)).save(narrow, "PNG")
    with pytest.raises(UnusableImage, match="20 pixels high"):
        opened(replace(next(source.records()), read=narrow.getvalue))


def test_partial_downloads_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "raw")
    with pytest.raises(UserError) as error:
        fgvc_aircraft.load(params("fgvc_aircraft", root, source="manufacturer"), SIDES)
    refused(error, "30 classes and 3,334 train + 3,333 val + 3,333 test", "3 classes and 3 train")
    (root / "fgvc-aircraft-2013b/data/images/0041419.jpg").unlink()
    with pytest.raises(UserError) as error:
        load(root)
    refused(error, "1 of the 9 images", "images/0041419.jpg", "vgg/data/fgvc-aircraft")
    variants = root / "fgvc-aircraft-2013b/data/variants.txt"
    lines(variants, "737-200", "737-300", "A380")
    with pytest.raises(UserError) as error:
        load(root)
    refused(error, "has 4 classes", "have 3 classes")
    lines(variants, "737-200", "737-300", "A380", "F-16")
    with pytest.raises(UserError) as error:
        load(root)
    refused(error, "images/0037511.jpg is a F/A-18, which is no class of it")
    (root / "fgvc-aircraft-2013b/data/images_variant_val.txt").unlink()
    with pytest.raises(UserError) as error:
        load(root)
    refused(error, "images_variant_val.txt is missing")
