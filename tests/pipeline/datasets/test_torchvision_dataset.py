import hashlib
import json
import pickle
import struct
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets import torchvision_dataset
from pipeline.datasets.source import Source
from pipeline.images.sizes import Sides
from pipeline.prepare import prepare
from stochca.errors import UserError
from tests.pipeline.datasets.miniatures import (
    SIDES,
    check_pictures,
    found,
    lines,
    opened,
    params,
    photograph,
    refused,
)

RANDOM = np.random.default_rng(0)


def load(root: Path, name: str) -> Source:
    return torchvision_dataset.load(params("torchvision", root, source=name), SIDES)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that nothing listens to: the same on machines with and without a network."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    # urllib keeps what its first request of the process made, proxies included.
    monkeypatch.setattr(urllib.request, "_opener", None)


def food(root: Path) -> dict[str, int]:
    """Food101 as it is unpacked; torchvision reads the lists as JSON, class by class."""
    base = root / "food-101"
    lists = {
        "train": {"apple_pie": [11, 12], "waffles": [21]},
        "test": {"apple_pie": [13], "waffles": [22, 23]},
    }
    numbers = {}
    for split, classes in lists.items():
        content = {name: [f"{name}/{number}" for number in chosen] for name, chosen in classes.items()}
        lines(base / "meta" / f"{split}.json", json.dumps(content))
        paths = [path for chosen in content.values() for path in chosen]
        for place, path in enumerate(paths):
            number = int(path.split("/")[1])
            photograph(base / "images" / f"{path}.jpg", number)
            numbers[f"{split}/{place:06}"] = number
    return numbers


def test_splits_of_photographs(tmp_path: Path) -> None:
    numbers = food(tmp_path)
    source = load(tmp_path, "Food101")
    assert source.classes == ["apple_pie", "waffles"]
    assert source.layout == "torchvision.Food101"
    expected = {
        name: ("apple_pie" if number < 20 else "waffles", name.split("/")[0])
        for name, number in numbers.items()
    }
    assert found(source) == expected
    check_pictures(source, numbers)
    assert "6 images in train, test" in source.summary


def digits(root: Path) -> dict[str, tuple[int, np.ndarray]]:
    """MNIST's own files: numbers in big-endian order."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    written = {}
    for split, prefix, count in (("train", "train", 30), ("test", "t10k", 20)):
        images = RANDOM.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        content = struct.pack(">IIII", 0x803, count, 28, 28) + images.tobytes()
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(content)
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 0x801, count) + labels.tobytes()
        )
        for index in range(count):
            written[f"{split}/{index:06}"] = (int(labels[index]), images[index])
    return written


def test_train_as_a_yes_or_no_and_grey_images(tmp_path: Path) -> None:
    written = digits(tmp_path)
    source = load(tmp_path, "MNIST")
    assert source.classes[3] == "3 - three"
    assert found(source) == {
        name: (source.classes[label], name.split("/")[0]) for name, (label, _) in written.items()
    }
    for record in source.records():
        picture = np.asarray(opened(record))
        assert np.array_equal(picture, np.stack([written[record.id][1]] * 3, axis=-1))


def test_splits_are_drawn_where_there_are_none_and_damaged_images_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "eurosat" / "2750"
    for number in range(24):
        photograph(folder / ["Forest", "River"][number % 2] / f"{number:02}.jpg", number, (30, 30))
    (folder / "Forest" / "00.jpg").write_bytes(b"no image")
    source = load(tmp_path, "EuroSAT")
    images = found(source)
    assert {split for _, split in images.values()} == {None}
    manifest = prepare(
        params("torchvision", tmp_path, source="EuroSAT"), Sides.of(16, None), tmp_path / "prepared"
    )
    assert sum(manifest["totals"].values()) == 23
    assert min(manifest["totals"][split] for split in ("train", "val", "test")) > 0
    [problem] = [problem for problem in manifest["problems"] if "decoded" in problem["problem"]]
    assert problem["file"] == "all/000000"


def test_classes_without_names_are_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SEMEION's rows: 256 values of an image, then ten of which one is 1."""
    rows = []
    for number in range(12):
        row = [*RANDOM.integers(0, 2, 256).tolist(), *[int(number % 3 == digit) for digit in range(10)]]
        rows.append(" ".join(str(float(value)) for value in row[:256]) + " " + " ".join(map(str, row[256:])))
    lines(tmp_path / "semeion.data", *rows)
    from torchvision.datasets import SEMEION

    md5 = hashlib.md5((tmp_path / "semeion.data").read_bytes()).hexdigest()
    monkeypatch.setattr(SEMEION, "md5_checksum", md5)
    source = load(tmp_path, "SEMEION")
    assert source.classes == ["0", "1", "2"]
    assert [name for name, _ in found(source).values()] == [str(number % 3) for number in range(12)]


def test_what_can_not_be_used_is_refused_by_name(tmp_path: Path, offline: None) -> None:
    for name, words in {
        "Food102": "did you mean Food101",
        "os": "no dataset of torchvision",
        "ImageFolder": "set dataset.name: image_folder",
        "DatasetFolder": "set dataset.name: image_folder",
        "FakeData": "set dataset.name: image_folder",
        "EMNIST": "its split has no value for training images",
        "CocoDetection": "missing 1 required positional argument",
    }.items():
        with pytest.raises(UserError) as error:
            load(tmp_path, name)
        refused(error, name, words)
    with pytest.raises(UserError) as error:
        load(tmp_path, "StanfordCars")
    refused(error, "StanfordCars is not in dataset.root", "can't be downloaded")


def test_pickles_with_another_checksum_are_refused_unread(tmp_path: Path, offline: None) -> None:
    class Alarm:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return (exec, (f"open({str(tmp_path / 'alarm')!r}, 'w')",))

    for folder in ("cifar-10-batches-py", "cifar-100-python"):
        for name in ("data_batch_1", "batches.meta", "train", "meta"):
            path = tmp_path / "raw" / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pickle.dumps(Alarm()))
    for name in ("CIFAR10", "CIFAR100"):
        with pytest.raises(UserError) as error:
            load(tmp_path / "raw", name)
        refused(error, f"{name} is not in dataset.root", "corrupted", "can't be downloaded")
    assert not (tmp_path / "alarm").exists()


def test_images_without_one_class_are_refused(tmp_path: Path) -> None:
    """Kitti gives the boxes of many cars."""
    for part in ("training", "testing"):
        photograph(tmp_path / "Kitti" / "raw" / part / "image_2" / "000000.png", 1)
    lines(
        tmp_path / "Kitti" / "raw" / "training" / "label_2" / "000000.txt",
        "Car 0.0 0 1.55 614.24 181.78 727.31 284.77 1.57 1.73 4.15 1.00 1.75 13.22 1.62",
    )
    with pytest.raises(UserError) as error:
        load(tmp_path, "Kitti")
    refused(error, "Kitti does not give an image and its class")


def test_a_split_without_classes_is_left_out(tmp_path: Path) -> None:
    """CLEVR counts things, but not for the images to test on."""
    base = tmp_path / "clevr" / "CLEVR_v1.0"
    for split in ("train", "val", "test"):
        scenes = []
        for things in (1, 2):
            photograph(base / "images" / split / f"{things}.png", things)
            scenes.append({"image_filename": f"{things}.png", "objects": [{}] * things})
        lines(base / "scenes" / f"CLEVR_{split}_scenes.json", json.dumps({"scenes": scenes}))
    source = load(tmp_path, "CLEVRClassification")
    assert found(source) == {
        f"{split}/{index:06}": (str(index + 1), split) for split in ("train", "val") for index in (0, 1)
    }
    assert source.problems == [
        {"file": "test", "problem": "its images have no classes", "action": "left out"}
    ]


def test_trainval_stands_for_train(tmp_path: Path) -> None:
    base = tmp_path / "oxford-iiit-pet"
    for index, name in enumerate(["a_1", "b_1"]):
        photograph(base / "images" / f"{name}.jpg", index)
    (base / "annotations").mkdir()
    lines(base / "annotations" / "trainval.txt", "a_1 1 1 1", "b_1 2 1 1")
    lines(base / "annotations" / "test.txt", "a_1 1 1 1")
    assert found(load(tmp_path, "OxfordIIITPet")) == {
        "train/000000": ("A", "train"),
        "train/000001": ("B", "train"),
        "test/000000": ("A", "test"),
    }


def test_without_a_network_it_says_so_and_leaves_the_root_alone(
    tmp_path: Path, offline: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(UserError) as error:
        load(tmp_path / "raw", "Food101")
    refused(error, "torchvision's Food101 is not in dataset.root", "can't be downloaded", "put it there")
    assert "downloads it into work/downloaded/torchvision, once" in capsys.readouterr().out
    assert list((tmp_path / "raw").iterdir()) == []


def test_what_was_downloaded_before_is_used(tmp_path: Path, offline: None) -> None:
    digits(torchvision_dataset.DOWNLOADED)
    (tmp_path / "raw").mkdir()
    assert len(found(load(tmp_path / "raw", "MNIST"))) == 50
