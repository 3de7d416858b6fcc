import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from pipeline.datasets import image_folder
from pipeline.datasets.source import Source, open_source
from pipeline.images.sizes import Sides
from stochca.errors import UserError
from tests.pipeline.datasets.miniatures import opened
from tests.pipeline.sections import dataset_section


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 8), "red").save(path, "PNG")
    return root


def load(root: Path, domains: list[str] | None = None) -> Source:
    dataset = dataset_section(name="image_folder", root=str(root), domains=domains)
    return image_folder.load(dataset, Sides.of(70, None))


def found(source: Source) -> dict[str, tuple[str, str, str | None]]:
    records = list(source.records())
    assert len(records) == source.count
    assert all(record.group is None for record in records)
    return {record.id: (record.class_name, record.domain, record.split) for record in records}


def told(source: Source) -> set[tuple[str, str]]:
    return {(problem["file"], problem["action"]) for problem in source.problems}


def refused(root: Path, *words: str, domains: list[str] | None = None) -> None:
    with pytest.raises(UserError) as error:
        load(root, domains)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_class_folders(tmp_path: Path) -> None:
    source = load(make(tmp_path, "cat/1.jpg", "cat/2.PNG", "dog/3.Jpeg", "dog/4.webp"))
    assert source.layout == "class"
    assert source.classes == ["cat", "dog"]
    assert source.domains == ["all"]
    assert found(source) == {
        "cat/1.jpg": ("cat", "all", None),
        "cat/2.PNG": ("cat", "all", None),
        "dog/3.Jpeg": ("dog", "all", None),
        "dog/4.webp": ("dog", "all", None),
    }
    assert source.problems == []
    for word in (str(tmp_path), "root/CLASS/*", "2 classes", "cat, dog", "4 images"):
        assert word in source.summary
    record = next(source.records())
    assert opened(record).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "valid", "testing"), ("TRAIN", "validation", "test")]
)
def test_split_folders(tmp_path: Path, names: Sequence[str]) -> None:
    source = load(make(tmp_path, *[f"{name}/{c}/1.png" for name in names for c in ("cat", "dog")]))
    assert source.layout == "split"
    assert source.domains == ["all"]
    for name, split in zip(names, ("train", "val", "test"), strict=True):
        assert found(source)[f"{name}/cat/1.png"] == ("cat", "all", split)


def test_domain_folders(tmp_path: Path) -> None:
    make(tmp_path, *[f"{domain}/{c}/1.png" for domain in ("photo", "sketch") for c in ("cat", "dog", "owl")])
    (tmp_path / "sketch/owl/1.png").unlink()
    source = load(tmp_path)
    assert source.layout == "domain"
    assert source.domains == ["photo", "sketch"]
    assert source.classes == ["cat", "dog", "owl"]
    assert found(source)["sketch/dog/1.png"] == ("dog", "sketch", None)
    only = load(tmp_path, ["sketch"])
    assert only.domains == ["sketch"]
    assert only.classes == ["cat", "dog"]
    assert {domain for _, domain, _ in found(only).values()} == {"sketch"}


def test_versions_of_pictures_are_no_domains(tmp_path: Path) -> None:
    make(tmp_path, *[f"{top}/{c}/1.png" for top in ("original", "augmented") for c in ("cat", "dog")])
    refused(tmp_path, "holds the folder augmented beside original", "name one of the folders")
    assert load(tmp_path, ["original"]).count == 2


def test_many_domains_may_be_patients(tmp_path: Path) -> None:
    make(tmp_path, *[f"{10253 + patient}/{c}/1.png" for patient in range(21) for c in "01"])
    problem = "has 21 folders that are taken for domains"
    assert [told["problem"] for told in load(tmp_path).problems] == [problem]
    assert load(tmp_path, [str(10253 + patient) for patient in range(20)]).problems == []


def test_a_domain_that_is_not_there(tmp_path: Path) -> None:
    refused(make(tmp_path, "a/1.png", "b/1.png"), "names color", "allowed here are all", domains=["color"])


def test_a_class_may_be_named_like_a_split(tmp_path: Path) -> None:
    source = load(make(tmp_path, "train/1.png", "car/1.png"))
    assert (source.layout, source.classes) == ("class", ["car", "train"])
    assert told(source) == {("train", "taken for a class")}
    assert load(make(tmp_path / "forms", "valid/1.png", "invalid/1.png")).classes == ["invalid", "valid"]


def test_splits_below_the_classes(tmp_path: Path) -> None:
    make(tmp_path, *[f"{c}/{s}/1.png" for c in ("cat", "dog") for s in ("train", "Test", "val_images")])
    (tmp_path / "cat/val_images/1.png").unlink()
    source = load(tmp_path)
    assert (source.layout, source.classes, source.domains) == ("class split", ["cat", "dog"], ["all"])
    assert "root/CLASS/SPLIT/*" in source.summary
    assert found(source) == {
        "cat/train/1.png": ("cat", "all", "train"),
        "cat/Test/1.png": ("cat", "all", "test"),
        "dog/train/1.png": ("dog", "all", "train"),
        "dog/Test/1.png": ("dog", "all", "test"),
        "dog/val_images/1.png": ("dog", "all", "val"),
    }
    assert told(source) == {("cat/val_images", "left out")}
    (tmp_path / "dog/val_images/1.png").unlink()
    refused(tmp_path, "cat/val_images is named like a split and holds no image")


@pytest.mark.parametrize(
    "names", [("train_images", "test_images"), ("seg_train", "seg_test"), ("train2017", "Images-Test (1)")]
)
def test_splits_with_more_to_their_names(tmp_path: Path, names: Sequence[str]) -> None:
    source = load(make(tmp_path / "deep", *[f"{name}/{c}/1.png" for name in names for c in ("cat", "dog")]))
    assert {split for _, _, split in found(source).values()} == {"train", "test"}
    flat = make(tmp_path / "flat", *[f"{name}/1.png" for name in names])
    (flat / "train.csv").write_text("id,label")
    refused(flat, "named like a split but holds images", "dataset.labels", "there is train.csv")


def test_names_that_begin_like_splits_are_classes(tmp_path: Path) -> None:
    names = ["test_tube", "train_station", "valley", "devil", "trainers", "testament", "validator"]
    assert load(make(tmp_path, *[f"{name}/1.png" for name in names])).classes == sorted(names)


def test_splits_where_classes_should_be(tmp_path: Path) -> None:
    boxes = make(tmp_path / "boxes", "images/train/1.png", "images/val/1.png")
    for name in ("train", "val"):
        (boxes / "labels" / name).mkdir(parents=True)
        (boxes / "labels" / name / "1.txt").touch()
    refused(boxes, "holds images/train and images/val, named like splits", "dataset.labels")
    masks = make(
        tmp_path / "masks", *[f"{top}/{s}/1.png" for top in ("images", "masks") for s in ("train", "val")]
    )
    refused(masks, "images/train", "where classes should be")
    refused(
        make(tmp_path / "pairs", "images/1.png", "masks/1.png"), "images and masks, whose names say no class"
    )
    inside = make(
        tmp_path / "inside", *[f"{c}/{p}/1.png" for c in ("cat", "dog") for p in ("images", "masks")]
    )
    refused(inside, "cat/images and cat/masks, whose names say no class")
    beside = make(
        tmp_path / "beside", *[f"{p}/{c}/1.png" for c in ("cat", "dog") for p in ("images", "masks")]
    )
    refused(beside, "images and masks, whose names say no domain")
    assert load(beside / "images").classes == ["cat", "dog"]
    assert load(make(tmp_path / "one", "images/cat/1.png", "images/dog/1.png")).domains == ["images"]
    assert load(make(tmp_path / "faces", "mask/1.png", "no_mask/1.png")).classes == ["mask", "no_mask"]
    refused(make(tmp_path / "kaggle", "cat/1.png", "dog/1.png", "test/1.png"), "test is named like a split")
    refused(
        make(tmp_path / "three", "cat/1.png", "train/1.png", "valid/1.png"), "train is named like a split"
    )
    twice = make(tmp_path / "twice", *[f"train/{c}/1.png" for c in ("train", "val")])
    refused(twice, "train/train is named like a split")
    domain = make(
        tmp_path / "domain", *[f"{d}/{c}/1.png" for d in ("a", "b") for c in ("cat", "dog", "test")]
    )
    refused(domain, "a/test is named like a split")


def test_two_names_of_a_split_are_told(tmp_path: Path) -> None:
    source = load(make(tmp_path, *[f"{s}/{c}/1.png" for s in ("train", "Train", "dev", "val") for c in "xy"]))
    assert {split for _, _, split in found(source).values()} == {"train", "val"}
    assert {problem["problem"] for problem in source.problems} == {
        "is the split train, and so is Train",
        "is the split val, and so is dev",
    }


def test_a_split_without_images_is_not_replaced_by_a_draw(tmp_path: Path) -> None:
    make(tmp_path, "train/cat/1.png", "train/dog/1.png")
    (tmp_path / "test").mkdir()
    refused(tmp_path, "folder test is named like a split and holds no image")
    (tmp_path / "test/cat").mkdir()
    refused(tmp_path, "folder test is named like a split and holds no image")


def test_what_is_no_image_is_skipped_and_named_unless_hidden(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.png", "dog/1.png", "loose.png", "cat/.hidden.png", ".cache/x/1.png")
    (tmp_path / "cat" / "notes.txt").write_text("hello")
    (tmp_path / "cat" / ".DS_Store").write_text("")
    (tmp_path / "labels.csv").write_text("a,b")
    (tmp_path / "dog" / "empty").mkdir()
    source = load(tmp_path)
    assert set(found(source)) == {"cat/1.png", "dog/1.png"}
    assert told(source) == {
        (name, "left out") for name in ("cat/notes.txt", "labels.csv", "loose.png", "dog/empty")
    }


@pytest.mark.parametrize(
    "left",
    ["__MACOSX/cat/._1.png", "$RECYCLE.BIN/1.png", "@eaDir/1.png/thumb.jpg", "cat/@eaDir/1.png/thumb.jpg"],
)
def test_what_systems_leave_behind_is_no_class(left: str, tmp_path: Path) -> None:
    source = load(make(tmp_path, "cat/1.png", "dog/1.png", left, "cat/Thumbs.db", "desktop.ini"))
    assert (source.classes, source.count) == (["cat", "dog"], 2)


def test_links_that_lead_out_are_not_followed(tmp_path: Path) -> None:
    root = make(tmp_path / "root", "cat/1.png", "dog/1.png")
    make(tmp_path / "elsewhere", "secret.png", "owl/1.png")
    (root / "cat" / "out.png").symlink_to(tmp_path / "elsewhere" / "secret.png")
    (root / "owl").symlink_to(tmp_path / "elsewhere" / "owl")
    (root / "cat" / "broken.png").symlink_to(tmp_path / "nothing")
    (root / "dog" / "inside.png").symlink_to(root / "cat" / "1.png")
    source = load(root)
    assert set(found(source)) == {"cat/1.png", "dog/1.png", "dog/inside.png"}
    assert told(source) == {
        ("cat/out.png", "not followed"),
        ("owl", "not followed"),
        ("cat/broken.png", "left out"),
    }
    linked = tmp_path / "linked"
    linked.symlink_to(root)  # the root itself may be a link
    assert set(found(load(linked))) == set(found(source))


def test_a_name_that_is_no_text_still_has_an_id(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.png", "dog/1.png")
    os.rename(tmp_path / "cat/1.png", os.fsencode(tmp_path) + b"/cat/\xff\xe9.png")  # noqa: PTH104
    assert set(found(load(tmp_path))) == {"cat/\\xff\\xe9.png", "dog/1.png"}


def test_roots_that_hold_nothing_usable(tmp_path: Path) -> None:
    refused(tmp_path / "missing", "missing does not exist", "root/CLASS/*.jpg")
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "is a file")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "holds no class folders")
    refused(make(tmp_path / "flat", "1.png", "2.png"), "holds images but no class folders")
    refused(make(tmp_path / "one", "cat/1.png"), "only the class cat")
    links = make(tmp_path / "links", "1.png")
    (links / "cat").symlink_to(tmp_path / "empty")
    refused(links, "links that lead out of it are not followed")


def test_a_folder_that_can_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "cat/1.png", "dog/1.png")
    listed = os.scandir

    def denied(path: Path) -> object:
        if path.name == "dog":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", denied)  # root may read everything, so no mode would do
    refused(tmp_path, "dog can't be read: Permission denied")


def test_empty_classes_are_named(tmp_path: Path) -> None:
    make(tmp_path, "a/cat/1.png", "a/dog/1.png", "b/2.png", "c/3.png")
    (tmp_path / "classes" / "b").mkdir(parents=True)
    make(tmp_path / "classes", "cat/1.png", "dog/1.png")
    (tmp_path / "classes" / "b" / "notes.txt").touch()
    refused(tmp_path / "classes", "class folder b holds no image")
    make(tmp_path / "splits", "train/cat/1.png", "train/dog/1.png", "test/cat/1.png")
    (tmp_path / "splits" / "test" / "owl").mkdir()
    refused(tmp_path / "splits", "class folder owl holds no image")


def test_ambiguous_layouts_are_refused(tmp_path: Path) -> None:
    refused(make(tmp_path / "depths", "cat/1.png", "dog/poodle/1.png"), "ambiguous", "cat", "dog")
    refused(make(tmp_path / "both", "cat/1.png", "cat/x/1.png", "dog/1.png"), "ambiguous", "cat")
    refused(make(tmp_path / "deep", "photo/cat/x/1.png", "photo/dog/1.png"), "ambiguous", "photo/cat")
    breeds = make(
        tmp_path / "breeds", "dog/poodle/1.png", "dog/husky/1.png", "cat/siamese/1.png", "cat/x/1.png"
    )
    refused(breeds, "ambiguous", "cat", "not most of the 4")
    mixed = make(
        tmp_path / "mixed", "train/cat/1.png", "train/dog/1.png", "extra/cat/1.png", "extra/dog/1.png"
    )
    refused(mixed, "ambiguous", "extra is not")
    refused(
        make(tmp_path / "bare", "train/1.png", "test/1.png"), "named like a split", "instead of class folders"
    )
    refused(make(tmp_path / "untrained", "test/cat/1.png", "test/dog/1.png"), "no images to train on")


def test_masks_beside_their_images_are_refused(tmp_path: Path) -> None:
    make(tmp_path, *[f"{c}/{c} (1){end}.png" for c in ("benign", "malignant") for end in ("", "_mask")])
    named = "benign/benign (1).png and beside it benign (1)_mask.png, and so for 2 of 4 files"
    refused(tmp_path, str(tmp_path), named, "dataset.labels")


NAMES = [
    ("caf\u00e9", "cafe\u0301", r"'cafe\u0301' and 'caf\xe9'"),
    ("cat", "cat ", "'cat' and 'cat '"),
    ("cat", "Cat", "'Cat' and 'cat'"),
    ("hot dog", "hot  dog", "'hot  dog' and 'hot dog'"),
    ("cat", "c\u200bat", r"'cat' and 'c\u200bat'"),
]


@pytest.mark.parametrize(("one", "other", "shown"), NAMES)
def test_names_that_look_alike_are_refused(tmp_path: Path, one: str, other: str, shown: str) -> None:
    refused(make(tmp_path / "a", f"{one}/1.png", f"{other}/1.png", "owl/1.png"), "classes " + shown)
    refused(make(tmp_path / "b", f"train/{one}/1.png", f"test/{other}/1.png", "train/x/1.png"), shown)
    domains = make(tmp_path / "c", *[f"{d}/{c}/1.png" for d in (one, other) for c in ("x", "y")])
    refused(domains, "domains " + shown)


def test_letters_in_upper_and_lower_case_are_classes(tmp_path: Path) -> None:
    make(tmp_path, "a/1.png", "A/1.png")
    dataset = dataset_section(name="image_folder", root=str(tmp_path))
    source = open_source(dataset, Sides.of(70, None))
    assert source.classes == ["A", "a"]
    assert source.problems == [
        {"file": "a", "problem": "looks like another: 'A' and 'a'", "action": "taken for two"}
    ]


def test_a_wanted_domain_in_another_form(tmp_path: Path) -> None:
    make(tmp_path, *[f"{d}/{c}/1.png" for d in ("cafe\u0301", "b") for c in ("x", "y")])
    refused(tmp_path, r"'caf\xe9' and 'cafe\u0301' look alike", domains=["caf\u00e9"])


def test_splits_with_the_name_of_the_images(tmp_path: Path) -> None:
    tops = {"rps": "train", "rps-test-set": "test"}
    source = load(make(tmp_path / "a", *[f"{top}/{c}/1.png" for top in tops for c in ("cat", "dog")]))
    assert (source.layout, source.classes) == ("split", ["cat", "dog"])
    assert {id.split("/")[0]: split for id, (_, _, split) in found(source).items()} == tops
    flat = make(tmp_path / "b", "ISIC_Training_Input/1.png", "ISIC_Test_Input/2.png")
    (flat / "truth.csv").touch()
    refused(flat, "ISIC_Test_Input is named like a split but holds images", "there is truth.csv")
    mixed = make(tmp_path / "c", "pets_train/1.png", "pets_test/1.png", "cat/1.png")
    refused(mixed, "is named like a split but stands where classes are")
    four = [f"{kind}_{split}/{c}/1.png" for kind in "ab" for split in ("train", "test") for c in "xy"]
    refused(make(tmp_path / "d", *four), "a_test is named like a split, b_test is not")
    sets = make(tmp_path / "e", *[f"pets_{top}/{c}/1.png" for top in ("trainset", "testset") for c in "xy"])
    assert load(sets).layout == "split"
    half = make(tmp_path / "g", *[f"birds_{top}/{c}/1.png" for top in ("train", "holdout") for c in "xy"])
    refused(half, "birds_train is named like a split, birds_holdout is not")
    three = [f"{top}/{c}/1.png" for top in ("train", "eval", "test") for c in "xy"]
    refused(make(tmp_path / "h", *three), "eval stands beside test")
    of_classes = [f"{c}/{split}/1.png" for split in ("trainval", "val") for c in "xy"]
    refused(make(tmp_path / "i", *of_classes), "trainval is named like train and val in one")
    for top in ("trainval", "eval"):
        make(tmp_path / "f", *[f"birds_{top}/{c}/1.png" for c in "xy"])
        table = tmp_path / "f" / f"birds_{top}" / "metadata.csv"
        table.write_text("file_name,label\nx/1.png,x\ny/1.png,y\n")
    assert {record.split for record in load(tmp_path / "f").records()} == {"train", "test"}
