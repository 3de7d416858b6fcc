import io
import zipfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from pipeline.datasets import arrays
from pipeline.datasets.source import Source
from pipeline.images.sizes import Sides
from pipeline.prepare import prepare
from stochca.errors import UserError
from tests.pipeline.datasets.miniatures import SIDES, found, opened, params, refused

RANDOM = np.random.default_rng(0)


def noise(number: int, height: int = 12, width: int = 9) -> np.ndarray:
    return RANDOM.integers(0, 256, (number, height, width, 3), dtype=np.uint8)


def load(root: Path) -> Source:
    return arrays.load(params("arrays", root), SIDES)


def pictures(source: Source) -> list[np.ndarray]:
    return [np.asarray(opened(record)) for record in source.records()]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_splits_by_the_names_of_the_files(tmp_path: Path, save) -> None:  # type: ignore[no-untyped-def]
    train, test = noise(5), noise(3, 20, 30)
    save(tmp_path / "train.npz", images=train, labels=np.array([1, 0, 2, 1, 0]), class_names=["a", "b", "c"])
    save(tmp_path / "test.npz", labels=np.array([2, 1, 0], dtype=np.uint8), images=test)
    source = load(tmp_path)
    assert source.classes == ["a", "b", "c"]
    assert found(source) == {
        "test/000000": ("c", "test"),
        "test/000001": ("b", "test"),
        "test/000002": ("a", "test"),
        "train/000000": ("b", "train"),
        "train/000001": ("a", "train"),
        "train/000002": ("c", "train"),
        "train/000003": ("b", "train"),
        "train/000004": ("a", "train"),
    }
    for picture, original in zip(pictures(source), [*test, *train], strict=True):
        assert np.array_equal(picture, original)


def test_any_name_without_splits_and_labels_without_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "part1.npz", images=noise(2), labels=[7, 3])
    np.savez(tmp_path / "part2.npz", images=noise(1), labels=[10])
    source = load(tmp_path)
    assert source.classes == ["3", "7", "10"]
    assert found(source) == {
        "part1/000000": ("7", None),
        "part1/000001": ("3", None),
        "part2/000000": ("10", None),
    }
    np.savez(tmp_path / "test.npz", images=noise(1), labels=[10])
    with pytest.raises(UserError) as error:
        load(tmp_path)
    refused(error, "test.npz is named like a split, part1.npz is not", "root/train.npz")


def test_splits_with_more_to_their_names(tmp_path: Path) -> None:
    for names in (("train_images", "Test-Data"), ("pets_train_1", "pets_train_2", "pets_eval")):
        (folder := tmp_path / names[0]).mkdir()
        for name in names:
            np.savez(folder / f"{name}.npz", images=noise(1), labels=[10])
        splits = {name: "train" if "train" in name else "test" for name in names}
        source = load(folder)
        assert found(source) == {f"{name}/000000": ("10", split) for name, split in splits.items()}
        assert all(f"{name}.npz ({split})" in source.summary for name, split in splits.items())


GOOD: dict[str, Any] = {"images": np.zeros((3, 4, 5, 3), np.uint8), "labels": np.array([0, 1, 1])}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "grey": ({"images": np.zeros((3, 4, 5), np.uint8)}, "found 3 x 4 x 5 of uint8"),
    "channels first": ({"images": np.zeros((3, 3, 4, 5), np.uint8)}, "found 3 x 3 x 4 x 5"),
    "float": ({"images": np.zeros((3, 4, 5, 3), np.float32)}, "of float32"),
    "columns": ({"images": np.asfortranarray(np.ones((3, 4, 5, 3), np.uint8))}, "column by column"),
    "empty": ({"images": np.zeros((0, 4, 5, 3), np.uint8), "labels": np.zeros(0, int)}, "0 x 4 x 5 x 3"),
    "labels": ({"labels": np.array([0, 1])}, "labels must be 3 whole numbers"),
    "float labels": ({"labels": np.array([0.0, 1, 1])}, "found 3 of float64"),
    "no labels": ({"labels": None}, "labels"),
    "no images": ({"images": None}, "images.npy"),
    "names": ({"class_names": np.array(["a"])}, "class_names must be 2 different names"),
    "twice": ({"class_names": np.array(["a", "a"])}, "class_names must be 2 different names"),
    "negative": ({"labels": np.array([-1, 0, 0]), "class_names": np.array(["a", "b"])}, "from -1 to 0"),
    "objects": ({"labels": np.array([0, "x", {}], dtype=object)}, "allow_pickle=False"),
    "objects as images": ({"images": np.array([0, "x", {}], dtype=object)}, "of object"),
}


@pytest.mark.parametrize("case", BAD)
def test_arrays_of_another_shape_or_type_are_refused(tmp_path: Path, case: str) -> None:
    change, words = BAD[case]
    content = {name: value for name, value in {**GOOD, **change}.items() if value is not None}
    np.savez(tmp_path / "data.npz", **content)
    with pytest.raises(UserError) as error:
        load(tmp_path)
    refused(error, "data.npz", words)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load(tmp_path)
    refused(error, "holds no arrays; expected are root/train.npz")
    (tmp_path / "data.npz").write_bytes(b"nothing")
    with pytest.raises(UserError) as error:
        load(tmp_path)
    refused(error, "data.npz can't be read as plain arrays")
    np.savez(tmp_path / "data.npz", images=noise(50), labels=np.arange(50) % 2)
    content = bytearray((tmp_path / "data.npz").read_bytes())
    content[2000] ^= 1
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(UserError) as error:
        pictures(load(tmp_path))
    refused(error, "data.npz is damaged")
    short = io.BytesIO()
    np.save(short, noise(50))
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as file:
        file.writestr("images.npy", short.getvalue()[:-1])
        labels = io.BytesIO()
        np.save(labels, np.arange(50) % 2)
        file.writestr("labels.npy", labels.getvalue())
    with pytest.raises(UserError) as error:
        pictures(load(tmp_path))
    refused(error, "data.npz is damaged: it ends early")


def test_images_are_read_one_by_one(tmp_path: Path) -> None:
    """60 MB of pixels, of which never more than a few are in memory."""
    import tracemalloc

    np.savez(tmp_path / "data.npz", images=np.zeros((200, 320, 320, 3), np.uint8), labels=np.arange(200) % 2)
    source = load(tmp_path)
    tracemalloc.start()
    for record in source.records():
        record.read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6


def test_arrays_are_prepared(tmp_path: Path) -> None:
    images, labels = noise(40), np.arange(40) % 4
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    manifest = prepare(params("arrays", tmp_path), Sides.of(8, None), tmp_path / "prepared")
    table = datasets.Dataset.from_file(str(tmp_path / "prepared" / "images.arrow"))
    assert table["label"][:] == labels.tolist()
    assert manifest["classes"] == ["0", "1", "2", "3"]
    assert min(manifest["totals"][split] for split in ("train", "val", "test")) >= 4
    for picture, original in zip(table["image"], images, strict=True):
        assert picture.size == (9, 12)  # small enough to be kept as they are
        assert np.array_equal(np.asarray(picture), original)


@pytest.mark.parametrize("name", ["cifar-10-binary.tar.gz", "cifar-10-batches-py", "cifar-100-python.tar.gz"])
def test_cifar_is_left_to_torchvision(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"unread")
    with pytest.raises(UserError) as error:
        load(tmp_path)
    refused(error, f"for {name} choose dataset.name: torchvision with dataset.source: CIFAR10 or CIFAR100")


def test_splits_with_the_name_of_the_images(tmp_path: Path) -> None:
    for split in ("train", "test"):
        np.savez(tmp_path / f"mnist_{split}.npz", images=noise(2), labels=np.array([0, 1]))
    splits = {record.id.split("/")[0]: record.split for record in load(tmp_path).records()}
    assert splits == {"mnist_train": "train", "mnist_test": "test"}
