import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.datasets import terra_incognita
from pipeline.datasets.source import Source
from tests.pipeline.datasets.domain_trees import SIDES, draw, found, miniature, pack, params, refused

DOMAINS = ["location_100", "location_38", "location_43", "location_46"]
FACTS = miniature(terra_incognita.FACTS, 3, dict(zip(DOMAINS, [1, 3, 1, 1], strict=True)))
EARLIER = miniature(terra_incognita.EARLIER, 3, dict(zip(DOMAINS, [2, 3, 1, 1], strict=True)))
CATEGORIES = [{"id": 1, "name": "opossum"}, {"id": 6, "name": "bobcat"}, {"id": 30, "name": "empty"}]
CAR = {"id": 33, "name": "car"}
LABELLED = [  # file, location, categories
    ("a1.jpg", "38", [1]),
    ("a2.jpg", "38", [6, 6]),  # two of them, one image
    ("a3.jpg", "38", [33]),  # a car is no class here
    ("a4.jpg", "38", [30]),
    ("b1.jpg", "43", [6]),
    ("c1.jpg", "46", [1]),
    ("d1.jpg", "100", [30]),
    ("e1.jpg", "7", [1]),  # another place
]


def load(root: Path, domains: list[str] | None = None) -> Source:
    return terra_incognita.load(params("terra_incognita", root, domains), SIDES, (FACTS, EARLIER))


def labels(*images: tuple[str, Any, list[int]]) -> dict[str, Any]:
    """In the format COCO Camera Traps."""
    return {
        "info": {"version": "2021.01.13"},
        "categories": [*CATEGORIES, CAR],
        "images": [
            {"id": file[:-4], "file_name": file, "location": location} for file, location, _ in images
        ],
        "annotations": [
            {"id": f"{file}-{place}", "image_id": file[:-4], "category_id": category}
            for file, _, categories in images
            for place, category in enumerate(categories)
        ],
    }


def write(
    root: Path, *images: tuple[str, Any, list[int]], labels_in: str = "caltech_images_20210113.json"
) -> Path:
    draw(root / "eccv_18_all_images_sm", *(file for file, _, _ in images))
    (root / labels_in).parent.mkdir(exist_ok=True, parents=True)
    (root / labels_in).write_text(json.dumps(labels(*images)))
    return root


EXPECTED = [
    ("location_100/empty/d1.jpg", ("empty", "location_100")),
    ("location_38/bobcat/a2.jpg", ("bobcat", "location_38")),
    ("location_38/empty/a4.jpg", ("empty", "location_38")),
    ("location_38/opossum/a1.jpg", ("opossum", "location_38")),
    ("location_43/bobcat/b1.jpg", ("bobcat", "location_43")),
    ("location_46/opossum/c1.jpg", ("opossum", "location_46")),
]


def test_the_published_numbers() -> None:
    assert sum(terra_incognita.FACTS.images.values()) == 24_330
    assert sum(terra_incognita.EARLIER.images.values()) == 24_788
    assert len(terra_incognita.CLASSES) == terra_incognita.FACTS.classes == 10


def test_images_and_labels_as_unpacked(tmp_path: Path) -> None:
    source = load(write(tmp_path, *LABELLED))
    assert list(found(source).items()) == EXPECTED
    assert source.classes == ["bobcat", "empty", "opossum"]
    assert source.domains == DOMAINS


def test_the_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    raw = write(tmp_path / "raw", *LABELLED)
    pack(raw / "eccv_18_all_images_sm", raw / "eccv_18_all_images_sm.tar.gz")
    with zipfile.ZipFile(raw / "caltech_camera_traps.json.zip", "w") as archive:
        archive.write(raw / "caltech_images_20210113.json", "caltech_images_20210113.json")
    (raw / "caltech_images_20210113.json").unlink()
    assert list(found(load(raw)).items()) == EXPECTED


def test_the_five_label_files_of_the_part(tmp_path: Path) -> None:
    for part, images in (("train", LABELLED[:2]), ("cis_val", LABELLED[2:5]), ("trans_test", LABELLED[5:])):
        numbered = [(file, int(location), categories) for file, location, categories in images]
        write(tmp_path, *numbered, labels_in=f"eccv_18_annotation_files/{part}_annotations.json")
    assert list(found(load(tmp_path)).items()) == EXPECTED


@pytest.mark.parametrize("folder", ["terra_incognita", "."])
def test_domainbeds_folders(folder: str, tmp_path: Path) -> None:
    draw(tmp_path / folder, *(id for id, _ in EXPECTED))
    assert list(found(load(tmp_path)).items()) == EXPECTED


def test_the_earlier_version_is_whole_too(tmp_path: Path) -> None:
    draw(tmp_path, *(id for id, _ in EXPECTED), "location_100/opossum/d2.jpg")
    source = load(tmp_path)
    assert source.count == 7
    assert "2 location_100" in source.summary


def test_an_image_with_two_animals_is_in_both_classes(tmp_path: Path) -> None:
    write(tmp_path, *LABELLED[:-2], ("d1.jpg", "100", [30, 1]))
    both = [record for record in load(tmp_path).records() if record.domain == "location_100"]
    assert [record.class_name for record in both] == ["empty", "opossum"]
    assert len({record.read() for record in both}) == 1


def test_a_place_without_a_class_is_whole(tmp_path: Path) -> None:
    write(tmp_path, *LABELLED)
    assert load(tmp_path, ["location_43", "location_46"]).classes == ["bobcat", "opossum"]


def test_partial_downloads_are_refused(tmp_path: Path) -> None:
    write(tmp_path, *LABELLED)
    (tmp_path / "eccv_18_all_images_sm/b1.jpg").unlink()
    refused(lambda: load(tmp_path), "1 images of TerraIncognita are missing", "first b1.jpg")
    write(tmp_path, *LABELLED[:4], *LABELLED[5:])
    refused(lambda: load(tmp_path), "1 location_100 + 3 location_38 + 1 location_43 +", "+ 0 location_43 +")
    (tmp_path / "caltech_images_20210113.json").unlink()
    refused(
        lambda: load(tmp_path), "but no labels, caltech_images_*.json or", "caltech_camera_traps.json.zip"
    )


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"categories": [], "images": [{}], "annotations": []}'])
def test_damaged_labels_are_refused(content: str, tmp_path: Path) -> None:
    write(tmp_path, *LABELLED)
    (tmp_path / "caltech_images_20210113.json").write_text(content)
    refused(lambda: load(tmp_path), "caltech_images_20210113.json holds no labels", "download it again")


def test_labels_can_not_name_files_elsewhere(tmp_path: Path) -> None:
    write(tmp_path, *LABELLED[:-2], ("../outside.jpg", "100", [30]))
    assert (tmp_path / "outside.jpg").is_file()
    refused(lambda: load(tmp_path), "first ../outside.jpg")
