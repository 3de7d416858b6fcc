import json
import shutil
from functools import partial
from pathlib import Path

import datasets
import pytest

from pipeline.datasets import cub_200_2011
from pipeline.datasets.source import Source
from pipeline.prepare import prepare
from stochca.errors import UserError
from tests.pipeline.datasets.miniatures import (
    SIDES,
    check_pictures,
    found,
    lines,
    miniature,
    pack,
    params,
    photograph,
    refused,
)

FACTS = miniature(cub_200_2011.FACTS, classes=3, train=8, test=4)
CLASSES = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]


def expected() -> dict[str, tuple[str, str]]:
    """Four images of each class, of which one or two are for testing."""
    images = {}
    for place, name in enumerate(CLASSES):
        for number in range(4):
            test = number == place or (number == 3 and place == 0)
            images[f"{name}/{name[4:]}_{number:04}.jpg"] = (name, "test" if test else "train")
    return images


def write(folder: Path) -> Path:
    """CUB_200_2011/ with lists whose lines are in another order than each other."""
    images = expected()
    numbers = {path: number for number, path in enumerate(images, start=1)}
    for path, number in numbers.items():
        photograph(folder / "images" / path, number)
    lines(folder / "classes.txt", *[f"{place} {name}" for place, name in enumerate(CLASSES, start=1)])
    lines(folder / "images.txt", *[f"{number} {path}" for path, number in numbers.items()])
    labels = [f"{numbers[path]} {CLASSES.index(name) + 1}" for path, (name, _) in images.items()]
    lines(folder / "image_class_labels.txt", *reversed(labels))
    splits = [f"{numbers[path]} {int(split == 'train')}" for path, (_, split) in images.items()]
    lines(folder / "train_test_split.txt", *splits[5:], *splits[:5])
    lines(folder / "bounding_boxes.txt", *[f"{number} 1.0 2.0 3.0 4.0" for number in numbers.values()])
    return folder


def load(root: Path, **options: object) -> Source:
    return cub_200_2011.load(params("cub_200_2011", root, **options), SIDES, FACTS)


@pytest.mark.parametrize("place", ["inside", "itself", "renamed", "archive"])
def test_classes_and_splits_are_the_official_ones(tmp_path: Path, place: str) -> None:
    root = tmp_path / "raw"
    folder = write(root / "CUB_200_2011")
    if place == "itself":
        root = folder
    elif place == "renamed":
        root = folder.rename(tmp_path / "birds")
    elif place == "archive":
        pack(root / "CUB_200_2011.tgz", root, "CUB_200_2011")
        shutil.rmtree(folder)
    source = load(root)
    assert source.classes == CLASSES
    assert source.domains == ["all"]
    assert source.layout == "cub_200_2011"
    assert found(source) == expected()
    check_pictures(source, {path: number for number, path in enumerate(expected(), start=1)})
    assert "3 classes and 8 train + 4 test images" in source.summary
    assert "Wah" in str(source.attribution)


def test_the_published_numbers_are_checked(tmp_path: Path) -> None:
    root = write(tmp_path / "CUB_200_2011")
    with pytest.raises(UserError) as error:
        cub_200_2011.load(params("cub_200_2011", root), SIDES)
    refused(
        error,
        "CUB-200-2011 has 200 classes and 5,994 train + 5,794 test images",
        f"dataset.root {root} have 3 classes and 8 train + 4 test images",
        "vision.caltech.edu",
    )


def test_a_partial_download_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "CUB_200_2011")
    gone = [root / "images" / path for path in list(expected())[5:7]]
    for path in gone:
        path.unlink()
    with pytest.raises(UserError) as error:
        load(root)
    refused(error, "2 of the 12 images", f"first {gone[0]}", "again")


@pytest.mark.parametrize("name", ["images", "classes", "image_class_labels", "train_test_split"])
def test_lists_that_are_missing_or_cut_off_are_refused(tmp_path: Path, name: str) -> None:
    root = write(tmp_path / "CUB_200_2011")
    path = root / f"{name}.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    with pytest.raises(UserError) as error:
        load(tmp_path)
    refused(error, "again")
    path.unlink()
    with pytest.raises(UserError) as error:
        load(tmp_path)
    refused(error, f"{name}.txt is missing", "again")
    path.write_bytes(b"1 \xff\xfe\n")
    with pytest.raises(UserError) as error:
        load(tmp_path)
    refused(error, f"{name}.txt is no text")
    path.write_text("1\n")
    with pytest.raises(UserError) as error:
        load(tmp_path)
    refused(error, f"{name}.txt has a line without two columns")


def test_lists_do_not_lead_elsewhere(tmp_path: Path) -> None:
    root = write(tmp_path / "CUB_200_2011")
    photograph(tmp_path / "secret.jpg", 1)
    first = next(iter(expected()))
    for path in ("../../secret.jpg", str(tmp_path / "secret.jpg")):
        text = (root / "images.txt").read_text()
        (root / "images.txt").write_text(text.replace(first, path))
        with pytest.raises(UserError) as error:
            load(root)
        refused(error, path, "leads out of its folder")
        (root / "images.txt").write_text(text)


def test_it_has_no_domains(tmp_path: Path) -> None:
    root = write(tmp_path / "CUB_200_2011")
    with pytest.raises(UserError, match=r"dataset.domains names photo; allowed here are all"):
        load(root, domains=["photo"])


def test_it_is_prepared_from_its_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cub_200_2011, "load", partial(cub_200_2011.load, facts=FACTS))
    write(tmp_path / "CUB_200_2011")
    pack(tmp_path / "raw" / "CUB_200_2011.tgz", tmp_path, "CUB_200_2011")
    dataset = params("cub_200_2011", tmp_path / "raw", validation=0.3)
    manifest = prepare(dataset, SIDES, tmp_path / "prepared")
    table = datasets.Dataset.from_file(str(tmp_path / "prepared" / "images.arrow"))
    stored = dict(zip(table["id"], zip(table["label"], table["split"], strict=True), strict=True))
    drawn = {path for path, (_, split) in stored.items() if split == "val"}
    assert 1 <= len(drawn) <= 4
    for path, (name, split) in expected().items():
        assert stored[path] == (CLASSES.index(name), "val" if path in drawn else split)
        assert path not in drawn or split == "train"
    assert all(min(image.size) == 64 for image in table["image"])
    assert manifest["totals"]["test"] == 4
    assert manifest["license"] == cub_200_2011.FACTS.license
    assert json.loads((tmp_path / "prepared" / "manifest.json").read_text()) == manifest
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["CUB_200_2011.tgz"]
