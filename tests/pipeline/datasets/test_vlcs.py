from pathlib import Path

import pytest

from pipeline.datasets import vlcs
from pipeline.datasets.source import Source
from tests.pipeline.datasets.domain_trees import SIDES, draw, found, miniature, pack, params, refused

FACTS = miniature(vlcs.FACTS, 5, {"Caltech101": 5, "LabelMe": 6, "SUN09": 5, "VOC2007": 5})
CLASSES = ["bird", "car", "chair", "dog", "person"]


def load(root: Path, domains: list[str] | None = None) -> Source:
    return vlcs.load(params("vlcs", root, domains), SIDES, FACTS)


def domainbed() -> list[str]:
    names = [f"{domain}/{name}/0a.jpg" for domain in FACTS.images for name in CLASSES]
    return sorted([*names, "LabelMe/car/0b.jpg"])


def original(*parts: str) -> list[str]:
    """Each class in each domain has one image, which lies in all of `parts`; LabelMe has a further car."""
    return [
        f"{domain}/{part}/{number}/{image}.jpg"
        for domain in ("CALTECH", "LABELME", "SUN", "PASCAL")
        for part in parts
        for number in range(5)
        for image in ("1", "2")
        if image == "1" or (domain, number) == ("LABELME", 1)
    ]


def test_the_official_numbers() -> None:
    assert sum(vlcs.FACTS.images.values()) == 10_729


def test_domainbeds_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pack(draw(tmp_path / "raw/VLCS", *domainbed()), tmp_path / "raw/VLCS.tar.gz")
    source = load(tmp_path / "raw")
    assert list(found(source).items()) == [
        (name, (name.split("/")[1], name.split("/")[0])) for name in domainbed()
    ]
    assert source.classes == CLASSES
    assert source.domains == ["Caltech101", "LabelMe", "SUN09", "VOC2007"]


def test_the_original_layout_is_read_from_full(tmp_path: Path) -> None:
    draw(tmp_path / "VLCS", *original("train", "crossval", "test", "full"))
    images = found(load(tmp_path))
    assert len(images) == 21
    assert {id: value for id, value in images.items() if id.startswith("LabelMe")} == {
        "LabelMe/full/0/1.jpg": ("bird", "LabelMe"),
        "LabelMe/full/1/1.jpg": ("car", "LabelMe"),
        "LabelMe/full/1/2.jpg": ("car", "LabelMe"),
        "LabelMe/full/2/1.jpg": ("chair", "LabelMe"),
        "LabelMe/full/3/1.jpg": ("dog", "LabelMe"),
        "LabelMe/full/4/1.jpg": ("person", "LabelMe"),
    }
    assert images["VOC2007/full/4/1.jpg"] == ("person", "VOC2007")
    assert images["SUN09/full/2/1.jpg"] == ("chair", "SUN09")


def test_without_full_the_parts_make_up_the_whole(tmp_path: Path) -> None:
    draw(
        tmp_path,
        *(
            f"CALTECH/{part}/{n}/1.jpg"
            for n, part in enumerate(["train", "test", "crossval", "train", "test"])
        ),
    )
    assert found(load(tmp_path, ["Caltech101"])) == {
        "Caltech101/train/0/1.jpg": ("bird", "Caltech101"),
        "Caltech101/test/1/1.jpg": ("car", "Caltech101"),
        "Caltech101/crossval/2/1.jpg": ("chair", "Caltech101"),
        "Caltech101/train/3/1.jpg": ("dog", "Caltech101"),
        "Caltech101/test/4/1.jpg": ("person", "Caltech101"),
    }


def test_a_partial_download_is_refused(tmp_path: Path) -> None:
    draw(tmp_path, *domainbed()[:-1])
    refused(
        lambda: load(tmp_path),
        "5 classes and 5 Caltech101 + 6 LabelMe + 5 SUN09 + 5 VOC2007 images, but",
        "+ 4 VOC2007 images and none of the class person in VOC2007",
    )
    refused(lambda: load(tmp_path / "VOC2007"), "VLCS.tar.gz", "download VLCS")
