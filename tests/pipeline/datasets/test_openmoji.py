from collections import Counter
from itertools import islice

import numpy as np
import pytest

from pipeline.datasets import openmoji
from pipeline.datasets.source import Record
from pipeline.images.decoding import UnusableImage
from pipeline.images.sizes import Sides
from stochca.errors import UserError
from tests.pipeline.sections import dataset_section


def records(*names: str, domains: list[str] | None = None, side: int = 70) -> dict[str, Record]:
    source = openmoji.load(dataset_section(name="openmoji", domains=domains), Sides(side, side))
    return {record.id: record for record in source.records() if not names or record.group in names}


def picture(record: Record) -> np.ndarray:
    assert record.decode is not None
    decoded = record.decode(record.read())
    assert decoded.image.mode == "RGB"
    assert decoded.lossless
    return np.asarray(decoded.image).astype(int)


def test_nine_unicode_groups_without_skin_tones() -> None:
    source = openmoji.load(dataset_section(name="openmoji", domains=["color"]), Sides(70, 70))
    found = list(source.records())
    assert len(found) == source.count == 1898
    assert len({record.id for record in found}) == 1898
    counts = Counter(record.class_name for record in found)
    assert sorted(counts) == source.classes
    assert counts["Flags"] == 269
    assert counts["Smileys & Emotion"] == 168
    assert len(counts) == 9
    assert source.license == "CC BY-SA 4.0"
    assert source.attribution
    assert "OpenMoji" in source.attribution


def test_the_four_styles_of_a_face() -> None:
    found = records("grinning")
    assert list(found) == [f"grinning/{style}" for style in ("color", "line", "flat", "silhouette")]
    color, line, flat, silhouette = (picture(record) for record in found.values())
    for image in (color, line, flat, silhouette):
        assert image.shape == (70, 70, 3)
        assert (image[0, 0] == 255).all()  # on white

    def yellow(image: np.ndarray) -> np.ndarray:
        return (image[..., 0] > 200) & (image[..., 1] > 180) & (image[..., 2] < 80)

    assert yellow(color).mean() > 0.2
    assert yellow(flat).mean() > 0.2
    assert not yellow(line).any()
    assert (line.max(axis=-1) - line.min(axis=-1)).max() == 0  # black on white, nothing coloured
    assert (line < 60).any()
    assert not (flat.max(axis=-1) < 60).any()  # no outline
    assert set(np.unique(silhouette[30:40, 30:40])) == {0}  # filled
    drawn = (np.minimum(line, flat) < 128).any(axis=-1)
    assert (drawn & (silhouette[..., 0] > 128)).sum() == 0  # it covers all that the layers draw


def test_styles_share_the_emoji_as_their_group() -> None:
    found = records("pizza", "dog").values()
    assert {record.group for record in found} == {"pizza", "dog"}
    assert len(found) == 8
    assert all(record.split is None for record in found)


def test_equal_drawings_have_equal_sources_in_every_style() -> None:
    alike = records("curly_haired_man", "curly_haired_person")  # different SVG text, the same picture
    assert len({record.read() for record in alike.values()}) == 1
    different = records("red_circle", "large_blue_circle")  # the same lines and silhouette
    assert (picture(different["red_circle/line"]) == picture(different["large_blue_circle/line"])).all()
    assert different["red_circle/line"].read() != different["large_blue_circle/line"].read()


def test_only_the_domains_that_are_asked_for() -> None:
    found = openmoji.load(dataset_section(name="openmoji", domains=["silhouette", "line"]), Sides(32, 32))
    assert found.domains == ["line", "silhouette"]
    assert found.count == 2 * 1898
    assert {record.domain for record in islice(found.records(), 10)} == {"line", "silhouette"}


def test_an_unknown_domain_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"names sketch; allowed here are color, line, flat, silhouette"):
        openmoji.load(dataset_section(name="openmoji", domains=["color", "sketch"]), Sides(70, 70))


def test_a_style_in_which_nothing_is_drawn_is_unusable() -> None:
    white = records("white_circle", domains=["flat"])["white_circle/flat"]
    with pytest.raises(UnusableImage, match="nothing is drawn"):
        picture(white)
