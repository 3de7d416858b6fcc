import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Features, Image, Value
from PIL import Image as Pillow

from pipeline.datasets import huggingface
from pipeline.datasets.source import Source
from pipeline.images.sizes import Sides
from pipeline.prepare import prepare
from stochca.errors import UserError
from tests.pipeline.datasets.miniatures import SIDES, check_pictures, colour, found, opened, params, refused

CLASSES = ["cat", "dog", "owl"]
FEATURES = Features({"photo": Image(), "kind": ClassLabel(names=CLASSES), "place": Value("string")})


@pytest.fixture(autouse=True)
def _offline_and_on_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on machines with and without a network, and none of the user's cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def photo(number: int) -> bytes:
    buffer = io.BytesIO()
    Pillow.new("RGB", (90, 70), colour(number)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write(
    folder: Path, splits: dict[str, list[int | None]], features: Features = FEATURES, first: int = 0
) -> dict[str, int]:
    """A Parquet file per split, as on the hub, with an image per label; and the numbers of their colours."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    numbers: dict[str, int] = {}
    for split, labels in splits.items():
        columns: dict[str, list[Any]] = {
            name: [
                {"bytes": photo(first + index), "path": None}
                if isinstance(feature, Image)
                else label
                if isinstance(feature, ClassLabel)
                else "Paris"
                for index, label in enumerate(labels)
            ]
            for name, feature in features.items()
        }
        table = datasets.Dataset.from_dict(columns, features=features)
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
        numbers |= {f"{split}/{index:06}": first + index for index in range(len(labels))}
        first += len(labels)
    return numbers


def load(root: Path, source: str, **options: Any) -> Source:
    return huggingface.load(params("huggingface", root, source=source, **options), SIDES)


def test_columns_are_found_by_what_they_hold(tmp_path: Path) -> None:
    numbers = write(tmp_path / "animals", {"train": [2, 0, 1, 0], "validation": [1], "test": [0, 2]})
    source = load(tmp_path, "animals")
    assert source.classes == CLASSES
    assert found(source) == {
        "train/000000": ("owl", "train"),
        "train/000001": ("cat", "train"),
        "train/000002": ("dog", "train"),
        "train/000003": ("cat", "train"),
        "val/000000": ("dog", "val"),
        "test/000000": ("cat", "test"),
        "test/000001": ("owl", "test"),
    }
    check_pictures(source, {name.replace("validation", "val"): number for name, number in numbers.items()})
    assert "3 classes in the column kind, 7 images in the column photo" in source.summary
    assert source.problems == []


def test_the_root_itself_may_be_the_folder_and_what_changes_there_is_seen(tmp_path: Path) -> None:
    write(tmp_path / "raw", {"train": [0, 1]})
    assert len(found(load(tmp_path / "raw", "."))) == 2
    write(tmp_path / "raw", {"train": [0, 1, 2]}, first=5)
    source = load(tmp_path / "raw", ".")
    assert len(found(source)) == 3
    check_pictures(source, {f"train/{index:06}": 5 + index for index in range(3)})


def test_images_without_a_class_and_other_splits_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "raw", {"train": [0, None, 1, 2] * 4, "eval": [1], "test": [-1, -1]})
    source = load(tmp_path / "raw", ".")
    told = {problem["file"]: problem["problem"] for problem in source.problems}
    assert told == {"test": "its images have no classes", "eval": "is no split of train, val and test"}
    manifest = prepare(
        params("huggingface", tmp_path / "raw", source="."), Sides.of(56, None), tmp_path / "prepared"
    )
    assert sum(manifest["totals"].values()) == 12
    problems = {problem["file"]: problem["problem"] for problem in manifest["problems"]}
    assert problems["train/000001"] == "has no class"
    table = datasets.Dataset.from_file(str(tmp_path / "prepared" / "images.arrow"))
    expected = {f"train/{index:06}": (0, 0, 1, 2)[index % 4] for index in range(16) if index % 4 != 1}
    assert dict(zip(table["id"], table["label"], strict=True)) == expected


def test_folders_of_images_keep_their_bytes(tmp_path: Path) -> None:
    """The images lie beside the table, which names their files."""
    for split in ("train", "test"):
        for place, name in enumerate(("cat", "dog")):
            folder = tmp_path / "raw" / split / name
            folder.mkdir(parents=True)
            (folder / "1.jpg").write_bytes(photo(place + 3))
    source = load(tmp_path / "raw", ".")
    assert sorted(found(source).values()) == [(n, s) for n in ("cat", "dog") for s in ("test", "train")]
    assert {record.read() for record in source.records()} == {photo(3), photo(4)}


def test_columns_that_are_missing_or_several_are_named(tmp_path: Path) -> None:
    two = Features({"image": Image(), "fine": ClassLabel(names=CLASSES), "coarse": ClassLabel(names=CLASSES)})
    write(tmp_path / "two", {"train": [0, 1, 2]}, two)
    with pytest.raises(UserError) as error:
        load(tmp_path, "two")
    refused(
        error,
        "one column of classes, found 2",
        "fine (ClassLabel), coarse (ClassLabel)",
        "dataset.label_column",
    )
    assert "column coarse" in load(tmp_path, "two", label_column="coarse").summary
    with pytest.raises(UserError) as error:
        load(tmp_path, "two", label_column="image")
    refused(error, "dataset.label_column image is no column of classes", "image (Image)")
    write(tmp_path / "none", {"train": [0]}, Features({"image": Image(), "text": Value("string")}))
    with pytest.raises(UserError) as error:
        load(tmp_path, "none")
    refused(error, "one column of classes, found 0 among image (Image), text (")
    write(tmp_path / "blind", {"train": [0]}, Features({"label": ClassLabel(names=CLASSES)}))
    with pytest.raises(UserError) as error:
        load(tmp_path, "blind")
    refused(error, "one column of images, found 0 among label (ClassLabel)")


def test_without_a_split_to_train_on_it_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "raw", {"test": [0, 1]})
    with pytest.raises(UserError) as error:
        load(tmp_path / "raw", ".")
    refused(error, "has the splits test, none of which is called train")


def test_folders_elsewhere_are_not_read(tmp_path: Path) -> None:
    """DVC would not see that they changed."""
    write(tmp_path / "elsewhere", {"train": [0, 1]})
    write(Path("some/folder"), {"train": [0, 1]})
    (tmp_path / "raw").mkdir()
    for source in ("../elsewhere", str(tmp_path / "elsewhere"), "some/folder"):
        with pytest.raises(UserError) as error:
            load(tmp_path / "raw", source)
        refused(error, source, "no folder in dataset.root")


@pytest.mark.parametrize("source", ["nobody/nothing", "nobody/nothing:small@main", "not a name"])
def test_without_a_network_it_says_so(tmp_path: Path, source: str) -> None:
    with pytest.raises(UserError) as error:
        load(tmp_path, source)
    words = ["no name on the hub"] if source == "not a name" else ["can't be had from the Hugging Face hub"]
    refused(error, source, f"no folder in dataset.root {tmp_path}", *words)


def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "train.parquet").write_bytes(b"nothing")
    with pytest.raises(UserError) as error:
        load(tmp_path / "raw", ".")
    refused(error, f"the folder . in dataset.root {tmp_path / 'raw'} can't be read")


def test_images_stay_encoded_until_they_are_read(tmp_path: Path) -> None:
    write(tmp_path / "raw", {"train": [0, 1, 2]})
    record = next(load(tmp_path / "raw", ".").records())
    assert record.read() == photo(0)
    assert np.array_equal(np.asarray(opened(record)).shape, (64, 82, 3))
