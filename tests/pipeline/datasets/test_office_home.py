from pathlib import Path

import pytest

from pipeline.datasets import office_home
from pipeline.datasets.source import Source
from tests.pipeline.datasets.domain_trees import SIDES, draw, found, miniature, pack, params, refused

FACTS = miniature(office_home.FACTS, 2, {"Art": 2, "Clipart": 2, "Product": 3, "Real_World": 2})
NAMES = [
    "Art/Alarm_Clock/00001.jpg",
    "Art/Backpack/00001.jpg",
    "Clipart/Alarm_Clock/00001.jpg",
    "Clipart/Backpack/00001.jpg",
    "Product/Alarm_Clock/00001.jpg",
    "Product/Alarm_Clock/00002.jpg",
    "Product/Backpack/00001.jpg",
    "Real World/Alarm_Clock/00001.jpg",
    "Real World/Backpack/00001.jpg",
]


def load(root: Path, domains: list[str] | None = None) -> Source:
    return office_home.load(params("office_home", root, domains), SIDES, FACTS)


def test_the_official_numbers() -> None:
    assert sum(office_home.FACTS.images.values()) == 15_588


def test_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = draw(tmp_path / "raw/OfficeHomeDataset_10072016", *NAMES)
    (folder / "ImageInfo.csv").write_text("Domain,Class\n")
    pack(folder, tmp_path / "raw/OfficeHomeDataset_10072016.zip")
    source = load(tmp_path / "raw")
    assert source.domains == ["Art", "Clipart", "Product", "Real_World"]  # without the folder's space
    expected = [
        (name.replace("Real World", "Real_World"), (name.split("/")[1], name.split("/")[0].replace(" ", "_")))
        for name in NAMES
    ]
    assert list(found(source).items()) == expected


@pytest.mark.parametrize("name", ["Real World", "Real_World", "RealWorld"])
def test_folders(name: str, tmp_path: Path) -> None:
    draw(tmp_path / "office_home", *(path.replace("Real World", name) for path in NAMES))
    source = load(tmp_path)
    assert source.count == 9
    assert [id for id in found(source) if id.startswith("Real")] == [
        "Real_World/Alarm_Clock/00001.jpg",
        "Real_World/Backpack/00001.jpg",
    ]
    assert load(tmp_path, ["Real_World"]).domains == ["Real_World"]


def test_a_partial_download_is_refused(tmp_path: Path) -> None:
    draw(tmp_path, *NAMES)
    (tmp_path / "Real World/Backpack/00001.jpg").unlink()
    refused(
        lambda: load(tmp_path), "2 Real_World images, but", "1 Real_World images", "Backpack in Real_World"
    )
    refused(lambda: load(tmp_path, ["Real_World"]), "2 Real_World images, but", "1 Real_World images")
    assert load(tmp_path, ["Art"]).count == 2
