from pathlib import Path

import pytest

from pipeline.datasets import pacs
from pipeline.datasets.source import Source
from tests.pipeline.datasets.domain_trees import SIDES, draw, found, miniature, pack, params, refused

FACTS = miniature(pacs.FACTS, 2, {"art_painting": 2, "cartoon": 3, "photo": 2, "sketch": 3})
NAMES = [
    "art_painting/dog/pic_001.jpg",
    "art_painting/horse/pic_001.jpg",
    "cartoon/dog/pic_001.jpg",
    "cartoon/horse/pic_001.jpg",
    "cartoon/horse/pic_002.jpg",
    "photo/dog/056_0001.jpg",
    "photo/horse/105_0001.jpg",
    "sketch/dog/5281.png",
    "sketch/dog/5282.png",
    "sketch/horse/n02374451_1.png",
]


def load(root: Path, domains: list[str] | None = None) -> Source:
    return pacs.load(params("pacs", root, domains), SIDES, FACTS)


def test_the_official_numbers() -> None:
    assert sum(pacs.FACTS.images.values()) == 9_991


@pytest.mark.parametrize("folder", ["kfold", "PACS", "pacs", "."])
def test_folders(folder: str, tmp_path: Path) -> None:
    draw(tmp_path / folder, *NAMES)
    (tmp_path / folder / "splits").mkdir()
    (tmp_path / folder / "art_painting/dog/.DS_Store").touch()
    (tmp_path / folder / "art_painting/dog/Thumbs.db").touch()
    source = load(tmp_path)
    assert list(found(source).items()) == [(name, tuple(reversed(name.split("/")[:2]))) for name in NAMES]
    assert source.classes == ["dog", "horse"]
    assert source.domains == ["art_painting", "cartoon", "photo", "sketch"]
    assert source.summary == "PACS: 2 classes and 2 art_painting + 3 cartoon + 2 photo + 3 sketch images"
    assert not source.paired
    assert "Li, Yang" in (source.attribution or "")


def test_the_root_may_be_the_folder_itself(tmp_path: Path) -> None:
    assert len(found(load(draw(tmp_path / "kfold", *NAMES)))) == 10


def test_the_archive_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pack(draw(tmp_path / "raw/kfold", *NAMES), tmp_path / "raw/PACS.zip")
    assert list(found(load(tmp_path / "raw"))) == NAMES


def test_chosen_domains_need_not_have_the_others_beside_them(tmp_path: Path) -> None:
    draw(tmp_path, *NAMES[2:5], *NAMES[7:])
    source = load(tmp_path, ["sketch", "cartoon"])
    assert source.domains == ["cartoon", "sketch"]
    assert list(found(source)) == [*NAMES[2:5], *NAMES[7:]]


def test_a_partial_download_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "kfold", *NAMES)
    (tmp_path / "kfold/photo/horse/105_0001.jpg").unlink()
    refused(
        lambda: load(tmp_path),
        "PACS has 2 classes and 2 art_painting + 3 cartoon + 2 photo + 3 sketch images",
        "has 2 classes and 2 art_painting + 3 cartoon + 1 photo + 3 sketch images and none of the class",
        "class horse in photo",
        "download PACS from https://",
    )
    for file in (tmp_path / "kfold/sketch").rglob("*.png"):
        file.unlink()
    for name in ("dog", "horse"):
        (tmp_path / "kfold/sketch" / name).rmdir()
    (tmp_path / "kfold/sketch").rmdir()
    refused(lambda: load(tmp_path), "holds no folder sketch, the domain sketch of PACS", "dataset.domains")
    refused(lambda: load(tmp_path / "kfold/photo"), "kfold", "PACS.zip", "download PACS")


def test_another_version_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "PACS", *NAMES, "photo/zebra/1.jpg")
    refused(lambda: load(tmp_path), "2 photo", "has 3 classes and", "+ 3 photo +")
    (tmp_path / "PACS/photo/horse/105_0001.jpg").unlink()
    refused(
        lambda: load(tmp_path), "has 2 classes and", "has 3 classes and"
    )  # with the right number of images


def test_an_unknown_domain(tmp_path: Path) -> None:
    refused(
        lambda: load(draw(tmp_path, *NAMES), ["photos"]), "photos", "art_painting, cartoon, photo, sketch"
    )
