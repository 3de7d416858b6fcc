import csv
import shutil
from pathlib import Path

import pytest

from pipeline.commands.advice import survey as module
from pipeline.commands.advice.survey import Survey, survey
from pipeline.commands.cost import Split
from pipeline.datasets import image_folder
from stochca.errors import UserError
from tests.pipeline.commands.advice.pictures import write_pictures
from tests.pipeline.sections import dataset_section


def look(root: Path, **settings: object) -> Survey:
    return survey(dataset_section(name="image_folder", root=str(root), **settings))


def test_classes_and_sizes(tmp_path: Path) -> None:
    write_pictures(tmp_path / "cat", 6, side=20, wide=50)
    write_pictures(tmp_path / "dog", 3, side=40)
    found = look(tmp_path)
    assert found.classes == {"cat": 6, "dog": 3}
    assert (found.layout, found.domains, found.splits, found.grouped) == (
        "class",
        ["all"],
        {"train": 9},
        False,
    )
    assert (found.looked_at, found.short_side, found.sides) == (9, 20, (20, 40))
    assert (found.doubles, found.broken) == (0, ())
    assert found.imbalance == 2
    assert found.lines == [
        "images: 9 of 2 classes (cat 6, dog 3)",
        "all of them looked at: short side 20 to 40, half of them up to 20 pixels; "
        "0 the same as another, 0 broken",
        "they are 2.5 times as long as wide (the median): resize squashes them to squares, or the ends were "
        "cut off",
    ]


def test_doubles_and_broken_ones(tmp_path: Path) -> None:
    write_pictures(tmp_path / "cat", 5)
    write_pictures(tmp_path / "dog", 4)
    shutil.copy(tmp_path / "cat" / "0.png", tmp_path / "cat" / "copy.png")
    shutil.copy(tmp_path / "cat" / "0.png", tmp_path / "dog" / "copy.png")
    (tmp_path / "dog" / "empty.png").touch()
    found = look(tmp_path)
    assert found.doubles == 2
    assert found.broken == ("dog/empty.png: the file is empty",)
    assert found.lines[-1] == "broken, for example: dog/empty.png: the file is empty; it will be left out"


def test_of_many_images_a_sample_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOKED_AT", 5)
    write_pictures(tmp_path / "cat", 20)
    write_pictures(tmp_path / "dog", 7)
    opened, real = [], Path.read_bytes

    def read(path: Path) -> bytes:
        opened.append(path)
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    found = look(tmp_path)
    assert len(opened) == len(set(opened)) == found.looked_at == 5
    assert found.classes == {"cat": 20, "dog": 7}
    assert found.lines[1].startswith("5 of them, a sample, looked at: ")


def test_splits_domains_and_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split, number in (("train", 8), ("test", 4)):
        for name in "ab":
            write_pictures(tmp_path / "split" / split / name, number)
    found = look(tmp_path / "split")
    assert (found.layout, found.splits) == ("split", {"test": 8, "train": 16})
    assert found.split(validation=0.25, test=0.5) == Split(train=12, validation=4, test=8)
    for domain in ("photo", "drawing"):
        for name in "ab":
            write_pictures(tmp_path / "domain" / domain / name, 3)
    assert look(tmp_path / "domain").lines[-1] == "domains: drawing, photo"
    with monkeypatch.context() as few:
        few.setattr(image_folder, "MANY", 1)
        last = look(tmp_path / "domain").lines[-1]
    assert "has 2 folders that are taken for domains: each is in all splits; if they are patients" in last
    for name in "01":
        (tmp_path / "split" / "train" / "a" / f"{name}.png").rename(
            tmp_path / "split" / "train" / "a" / f"{int(name) + 6}_flip.png"
        )
    (tmp_path / "split" / "notes.txt").touch()
    found = look(tmp_path / "split")
    assert found.grouped
    assert found.lines[-1].startswith("2 images are named as versions of others, as train/a/6_flip.png of ")
    write_pictures(tmp_path / "table" / "images", 8)
    with (tmp_path / "table" / "labels.csv").open("w") as file:
        rows = [[f"images/{place}.png", "ab"[place % 2], f"patient {place // 4}"] for place in range(8)]
        csv.writer(file).writerows([["path", "label", "group"], *rows])
    found = look(tmp_path / "table", labels="labels.csv")
    assert (found.layout, found.grouped, found.classes) == ("table", True, {"a": 4, "b": 4})


def refused(root: Path, *words: str) -> None:
    with pytest.raises(UserError) as error:
        look(root)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_what_can_not_be_trained_on(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "dog").mkdir()
    refused(tmp_path, "the class folder cat holds no image")
    for name in ("cat", "dog"):
        for place in range(4):
            (tmp_path / name / f"{place}.jpg").write_bytes(b"no image")
    refused(
        tmp_path, "none of the 8 images looked at in ", " can be read, for example cat/0.jpg: is no image"
    )
    write_pictures(tmp_path / "dog", 4)
    shutil.rmtree(tmp_path / "cat")
    refused(tmp_path, "only the class dog; at least two are needed")
    write_pictures(tmp_path / "cat", 2)
    refused(tmp_path, "the class cat in ", " has fewer images, 2, than the 3 that it needs")
