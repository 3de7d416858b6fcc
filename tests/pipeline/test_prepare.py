import json
import pickle
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline import prepare as stage
from pipeline.datasets.source import USED
from pipeline.images.prepared import load_prepared
from pipeline.images.sizes import Sides
from pipeline.prepare import main, prepare
from pipeline.runtime import boundary
from stochca.errors import UserError
from tests.imports import ROOT
from tests.pipeline.sections import dataset_section

FILES = ("images.arrow", "manifest.json")


def make(root: Path, counts: dict[str, int], seed: int = 0, size: tuple[int, int] = (20, 16)) -> Path:
    """Folders of noise; every image is different."""
    random = np.random.default_rng(seed)
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = random.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index:03}.png")
    return root


def run(root: Path, target: Path, image_size: int = 14, **options: Any) -> dict[str, Any]:
    return prepare(
        dataset_section(name="image_folder", root=str(root), **options), Sides.of(image_size, None), target
    )


def splits_of(target: Path) -> dict[str, str]:
    table = datasets.Dataset.from_file(str(target / "images.arrow"))
    return dict(zip(table["id"], table["split"], strict=True))


def problems_of(manifest: dict[str, Any]) -> dict[str, str]:
    return {problem["file"]: f"{problem['problem']}; {problem['action']}" for problem in manifest["problems"]}


def test_the_table_holds_what_the_folder_holds(tmp_path: Path) -> None:
    root = make(tmp_path / "raw", {"cat": 20, "dog": 12})
    manifest = run(root, tmp_path / "out")
    table = datasets.Dataset.from_file(str(tmp_path / "out" / "images.arrow"))
    assert table.features["label"].names == ["cat", "dog"]
    assert isinstance(table.features["image"], datasets.Image)
    assert table.column_names == ["image", "label", "domain", "id", "split", "group"]
    for row in table:
        assert row["id"].split("/")[0] == ["cat", "dog"][row["label"]]
        with Image.open(root / row["id"]) as original:
            expected = original.resize((20, 16))  # the short side is 14 * 8 / 7
            assert np.array_equal(np.asarray(row["image"]), np.asarray(expected))
    assert manifest["totals"] == {"train": 19, "val": 5, "test": 8, "unused": 0, "repeated": 0}
    assert manifest["counts"]["test"] == {"all": {"cat": 5, "dog": 3}}
    counted = Counter(splits_of(tmp_path / "out").values())
    assert counted == {name: count for name, count in manifest["totals"].items() if count}
    assert manifest["image_size"] == 16
    assert manifest["layout"] == "class"
    assert manifest["root"] == str(root)
    settings = {"name": "image_folder", "root": str(root), "labels": None, "domains": None, "test": 0.25}
    assert settings.items() <= manifest["settings"].items()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]


def test_preparing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    root = make(tmp_path / "raw", {"cat": 90, "dog": 60}, size=(200, 180))
    for path in sorted((root / "dog").iterdir()):
        Image.open(path).save(path.with_suffix(".jpg"), quality=90)
        path.unlink()
    (root / "cat" / "broken.png").write_bytes(b"nothing")
    runs = []
    for name, duplicates in (("first", "warn"), ("second", "error")):  # there are none
        run(root, tmp_path / name, image_size=140, duplicates=duplicates)
        runs.append([(tmp_path / name / file).read_bytes() for file in FILES])
    assert runs[0] == runs[1]


def test_unusable_images_are_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(tmp_path / "raw", {"cat": 12, "dog": 12})
    jpeg = root / "dog" / "cut.jpg"
    Image.open(root / "dog" / "000.png").resize((100, 100)).save(jpeg)
    jpeg.write_bytes(jpeg.read_bytes()[:-500])
    (root / "cat" / "zero.png").touch()
    (root / "cat" / "notes.txt").touch()
    Image.new("RGB", (300, 300)).save(root / "dog" / "huge.png")
    Image.new("RGB", (1, 20_000)).save(root / "dog" / "thin.png")
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    frames[0].save(root / "cat" / "moving.gif", save_all=True, append_images=frames[1:])
    manifest = run(root, tmp_path / "out", max_megapixels=0.05)
    problems = problems_of(manifest)
    assert "truncated" in problems["dog/cut.jpg"]
    assert problems["cat/zero.png"] == "the file is empty; left out"
    assert "300 x 300 pixels" in problems["dog/huge.png"]
    assert problems["cat/moving.gif"] == "has 2 frames, of which the first is used; kept"
    assert "100 times as long as wide; left out" in problems["dog/thin.png"]
    assert len(problems) == 6
    ids = splits_of(tmp_path / "out")
    assert len(ids) == 25
    assert "cat/moving.gif" in ids
    printed = capsys.readouterr().out
    for name in problems:
        assert name in printed


def test_grey_values_of_a_set_have_one_black_and_one_white(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    originals = {}
    for name in ("cat", "dog"):
        (tmp_path / "raw" / name).mkdir(parents=True)
        for index in range(12):
            values = random.integers(0, 1000 if name == "cat" else 4000, (8, 8), dtype=np.uint16)
            Image.fromarray(values).save(tmp_path / "raw" / name / f"{index}.png")
            originals[f"{name}/{index}.png"] = values
    Image.new("RGB", (8, 8), "red").save(tmp_path / "raw/cat/colour.png")
    manifest = run(tmp_path / "raw", tmp_path / "out")
    assert manifest["levels"] == {"whole numbers": [0, 4095]}
    problems = problems_of(manifest)
    (problem,) = problems.values()
    assert "24 images" in problems
    assert problem.startswith("have grey values of more than 8 bits, whole numbers from 0 to 3")
    assert problem.endswith("; 0 is black and 4095 white")
    table = datasets.Dataset.from_file(str(tmp_path / "out" / "images.arrow"))
    assert len(table) == 25
    for row in table:
        found = np.asarray(row["image"].convert("RGB"))
        if row["id"] == "cat/colour.png":
            assert (found == [255, 0, 0]).all()
        else:
            expected = np.floor(originals[row["id"]].astype(float) * 255 / 4095 + 0.5)
            assert (found == expected[..., None]).all()
    assert load_prepared(tmp_path / "out").levels == manifest["levels"]
    coloured = run(make(tmp_path / "colours", {"cat": 12, "dog": 12}), tmp_path / "out")
    assert "levels" not in coloured


def test_a_class_without_any_usable_image_is_an_error_and_nothing_changes(tmp_path: Path) -> None:
    root = make(tmp_path / "raw", {"cat": 9, "dog": 9})
    run(root, tmp_path / "out")
    before = [(tmp_path / "out" / file).read_bytes() for file in FILES]
    (root / "owl").mkdir()
    (root / "owl" / "1.png").write_bytes(b"garbage")
    with pytest.raises(UserError, match=r"class owl could be used .*owl/1.png is no image"):
        run(root, tmp_path / "out")
    assert [(tmp_path / "out" / file).read_bytes() for file in FILES] == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]


def test_given_splits_are_kept_and_missing_ones_are_taken_from_train(tmp_path: Path) -> None:
    root = make(tmp_path / "raw", {f"{s}/{c}": 20 for s in ("train", "test", "val") for c in ("cat", "dog")})
    run(root, tmp_path / "all")
    assert all(name.split("/")[0] == split for name, split in splits_of(tmp_path / "all").items())
    shutil.rmtree(root / "val")
    manifest = run(root, tmp_path / "out", validation=0.1)
    assert manifest["totals"] == {"train": 36, "val": 4, "test": 40, "unused": 0, "repeated": 0}
    assert manifest["train_fraction_of"] == ["train", "val"]  # which was drawn
    for name, split in splits_of(tmp_path / "out").items():
        assert (name.startswith("test/")) == (split == "test")
    shutil.rmtree(root / "test")
    assert run(root, tmp_path / "out")["totals"] == {
        "train": 24,
        "val": 6,
        "test": 10,
        "unused": 0,
        "repeated": 0,
    }


def test_a_split_without_usable_images_is_not_replaced_by_a_draw(tmp_path: Path) -> None:
    root = make(tmp_path / "raw", {f"{s}/{c}": 9 for s in ("train", "test") for c in ("cat", "dog")})
    for path in root.glob("test/*/*.png"):
        path.write_bytes(b"garbage")
    with pytest.raises(UserError, match=r"of the split test could be used .*test/cat/000.png is no image"):
        run(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_drawn_splits_keep_equal_images_together(tmp_path: Path) -> None:
    root = make(tmp_path / "raw", {"cat": 40, "dog": 40})
    copies = {f"cat/{index:03}.png": f"cat/z{index:03}.png" for index in range(15)}
    for original, copy in copies.items():
        shutil.copy(root / original, root / copy)
    shutil.copy(root / "cat/020.png", root / "dog/poison.png")
    manifest = run(root, tmp_path / "out", duplicates="error")
    splits = splits_of(tmp_path / "out")
    for original, copy in copies.items():
        assert splits[original] == splits[copy]
        assert problems_of(manifest)[copy] == f"is the same image as {original}; kept, in one split"
    assert splits["cat/020.png"] == splits["dog/poison.png"]
    assert "cat/020.png, but of the class dog, not cat" in problems_of(manifest)["dog/poison.png"]
    assert {splits[name] for name in copies} == {"train", "val", "test"}  # else nothing was at stake


def test_versions_of_a_picture_stay_in_one_split(tmp_path: Path) -> None:
    root = make(tmp_path / "raw", {"cat": 12, "dog": 12})
    for path in sorted(root.glob("cat/*.png")):
        for turns in (1, 2, 3):
            turned = np.rot90(np.asarray(Image.open(path)), turns)
            Image.fromarray(turned).save(path.with_stem(f"{path.stem}_{turns * 90}deg"))
    manifest = run(root, tmp_path / "out", validation=0.25, test=0.25)
    splits: dict[str, set[str]] = {}
    for name, split in splits_of(tmp_path / "out").items():
        splits.setdefault(name.partition("_")[0].removesuffix(".png"), set()).add(split)
    assert len(splits) == 24
    assert all(len(found) == 1 for found in splits.values())
    assert manifest["grouped"]
    assert {split: manifest["totals"][split] for split in USED} == {"train": 30, "val": 15, "test": 15}
    assert list(problems_of(manifest)) == ["36 images"]


def test_of_long_images_the_middle_is_seen_and_this_is_told(tmp_path: Path) -> None:
    root = make(tmp_path / "raw", {"cat": 4, "dog": 4}, size=(10, 40))
    told = problems_of(run(root, tmp_path / "out"))["8 images"]
    assert told.startswith("are 4.0 times as long as wide (the median), and the middle 25% is seen; ")
    dataset = dataset_section(name="image_folder", root=str(root))
    assert "8 images" not in problems_of(prepare(dataset, Sides.of(14, 14), tmp_path / "squares"))
    photos = make(tmp_path / "photos", {"cat": 4, "dog": 4}, size=(20, 13))  # about 3 : 2
    assert "8 images" not in problems_of(run(photos, tmp_path / "out"))


def test_duplicates_across_given_splits_warn_or_fail(tmp_path: Path) -> None:
    root = make(tmp_path / "raw", {f"{s}/{c}": 5 for s in ("train", "val", "test") for c in ("cat", "dog")})
    shutil.copy(root / "train/cat/000.png", root / "test/cat/leak.png")
    shutil.copy(root / "train/dog/000.png", root / "val/dog/leak.png")
    problems = problems_of(run(root, tmp_path / "out"))
    assert set(problems) == {"train/cat/000.png", "val/dog/leak.png"}  # the later of each two
    assert "test/cat/leak.png" in problems["train/cat/000.png"]
    assert "kept in both splits" in problems["train/cat/000.png"]
    with pytest.raises(UserError) as error:
        run(root, tmp_path / "out", duplicates="error")
    for word in ("test/cat/leak.png (test)", "train/cat/000.png (train)", "one of 2"):
        assert word in str(error.value)


@pytest.mark.parametrize(("suffix", "options"), [("bmp", {}), ("webp", {"lossless": True}), ("tiff", {})])
def test_the_same_pixels_in_another_encoding_are_the_same_image(
    suffix: str, options: dict[str, Any], tmp_path: Path
) -> None:
    root = make(tmp_path / "raw", {f"{s}/{c}": 5 for s in ("train", "val", "test") for c in ("cat", "dog")})
    Image.open(root / "train/cat/000.png").save(root / f"test/cat/leak.{suffix}", **options)
    problems = problems_of(run(root, tmp_path / "out"))
    assert "kept in both splits" in problems["train/cat/000.png"]
    with pytest.raises(UserError, match="are the same image"):
        run(root, tmp_path / "out", duplicates="error")
    run(root, tmp_path / "out", duplicates="leave_out")
    assert splits_of(tmp_path / "out")["train/cat/000.png"] == "repeated"


def test_repeated_pictures_are_left_out_on_request(tmp_path: Path) -> None:
    root = make(tmp_path / "raw", {f"{s}/{c}": 5 for s in ("train", "val", "test") for c in ("cat", "dog")})
    shutil.copy(root / "train/cat/000.png", root / "test/cat/leak.png")
    shutil.copy(root / "val/dog/000.png", root / "train/cat/other_class.png")
    manifest = run(root, tmp_path / "out", duplicates="leave_out")
    assert splits_of(tmp_path / "out")["train/cat/000.png"] == "repeated"
    assert splits_of(tmp_path / "out")["test/cat/leak.png"] == "test"
    assert splits_of(tmp_path / "out")["train/cat/other_class.png"] == "train"  # of a class of its own
    assert manifest["totals"] == {"train": 10, "val": 10, "test": 11, "unused": 0, "repeated": 1}
    assert manifest["train_fraction_of"] == ["train"]
    left_out = [problem["file"] for problem in manifest["problems"] if problem["action"] == "left out"]
    assert left_out == ["train/cat/000.png"]


def test_train_fraction_is_nested_and_leaves_test_alone(tmp_path: Path) -> None:
    root = make(tmp_path / "raw", {"cat": 40, "dog": 40})
    found = {}
    for fraction in (1.0, 0.5, 0.25, 0.1):
        run(root, tmp_path / "out", train_fraction=fraction)
        found[fraction] = splits_of(tmp_path / "out")
    for split in ("train", "val"):
        parts = [{n for n, s in splits.items() if s == split} for splits in found.values()]
        assert all(small <= large for large, small in pairwise(parts))
    train, val = ([list(s.values()).count(split) for s in found.values()] for split in ("train", "val"))
    assert train == [48, 24, 12, 4]
    assert val[:2] == [12, 6]
    assert 0 < val[3] <= val[2] <= 4
    assert {name.split("/")[0] for name, s in found[0.1].items() if s == "train"} == {"cat", "dog"}
    assert len({frozenset(n for n, s in splits.items() if s == "test") for splits in found.values()}) == 1
    assert Counter(found[0.5].values())["unused"] == 30
    with pytest.raises(
        UserError, match=r"train_fraction 0.01 leaves no image of the class cat, which has 30"
    ):
        run(root, tmp_path / "out", train_fraction=0.01)


def test_every_split_and_class_must_be_served(tmp_path: Path) -> None:
    small = make(tmp_path / "small", {"cat": 10, "dog": 2})
    with pytest.raises(UserError, match=r"dog has fewer images \(dog/000.png, dog/001.png\) than there are"):
        run(small, tmp_path / "out")
    shutil.copy(small / "dog/000.png", small / "dog/twice.png")
    problems = problems_of(run(small, tmp_path / "out"))
    assert problems["dog"] == "the class has only 3 images in 2 groups, none of them in val; kept"
    for name in ("cat", "dog"):
        (tmp_path / "alike" / name).mkdir(parents=True)
        for copy in range(3):
            shutil.copy(small / name / "000.png", tmp_path / "alike" / name / f"{copy}.png")
    with pytest.raises(UserError, match="6 images in 2 groups that share no image leave none for val; add"):
        run(tmp_path / "alike", tmp_path / "out")
    untested = make(tmp_path / "gap", {"train/cat": 9, "train/dog": 9, "test/cat": 3})
    problems = problems_of(run(untested, tmp_path / "out"))
    assert problems == {"dog": "the class has only 9 images, none of them in test; kept"}
    untrained = make(tmp_path / "raw", {"train/cat": 9, "train/dog": 9, "test/cat": 3, "test/owl": 3})
    with pytest.raises(UserError, match="class owl has no image to train on"):
        run(untrained, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_large_group_and_shares_that_are_off_are_told(tmp_path: Path) -> None:
    root = make(tmp_path / "raw", {"cat": 20, "dog": 20})
    groups = {f"{c}/{k:03}.png": "others" if k < 15 else f"{c}{k}" for c in ("cat", "dog") for k in range(20)}
    lines = [f"{path},{path[:3]},{group}" for path, group in groups.items()]
    (root / "labels.csv").write_text("\n".join(["path,label,group", *lines]))
    manifest = run(root, tmp_path / "out", labels="labels.csv")
    problems = problems_of(manifest)
    assert problems["others"].startswith("the group has 30 of 40 images; counts as one")
    assert manifest["totals"]["test"] < 8
    assert problems["test"].startswith(
        f"the split has {manifest['totals']['test'] / 40:.0%} of the images it is drawn from, not 25%"
    )
    assert problems_of(run(make(tmp_path / "even", {"cat": 20, "dog": 20}), tmp_path / "out")) == {}


def test_the_fingerprint_follows_the_data(tmp_path: Path) -> None:
    root = make(tmp_path / "raw", {"cat": 10, "dog": 10})
    prints = [run(root, tmp_path / "out")["fingerprint"] for _ in range(2)]
    assert prints[0] == prints[1]
    prints.append(run(root, tmp_path / "out", split_seed=1)["fingerprint"])
    prints.append(run(root, tmp_path / "out", image_size=7)["fingerprint"])
    image = Image.open(root / "cat/000.png").convert("RGB")
    image.putpixel((0, 0), (1, 2, 3))
    image.save(root / "cat/000.png")
    prints.append(run(root, tmp_path / "out")["fingerprint"])
    (root / "cat/000.png").rename(root / "cat/renamed.png")
    prints.append(run(root, tmp_path / "out")["fingerprint"])
    assert len(set(prints)) == 5


def test_the_fingerprint_follows_what_protocols_draw_by(tmp_path: Path) -> None:
    """`sampling_ratios` draws validation images anew, also where the dataset says which they are."""
    root = tmp_path / "raw"
    for seed, split in enumerate(("train", "val", "test")):
        make(root / split, {"cat": 3, "dog": 3}, seed)
    settings: list[dict[str, Any]] = [{}, {"validation": 0.4}, {"split_seed": 1}]
    drawn = [(run(root, tmp_path / "out", **each), splits_of(tmp_path / "out")) for each in settings]
    assert drawn[0][1] == drawn[1][1] == drawn[2][1]
    assert len({manifest["fingerprint"] for manifest, _ in drawn}) == 3


def test_reading_what_was_prepared(tmp_path: Path) -> None:
    root = make(tmp_path / "raw", {f"{d}/{c}": 8 for d in ("photo", "sketch") for c in ("cat", "dog")})
    manifest = run(root, tmp_path / "out")
    prepared = load_prepared(tmp_path / "out")
    assert prepared.manifest == manifest == json.loads((tmp_path / "out/manifest.json").read_text())
    assert prepared.classes == ["cat", "dog"]
    assert prepared.fingerprint == manifest["fingerprint"]
    expected = splits_of(tmp_path / "out")
    for split in ("train", "val", "test", "unused"):
        assert prepared.images(split).ids == [name for name, found in expected.items() if found == split]
    images = pickle.loads(pickle.dumps(prepared.images("train")))
    assert len(images) == len(images.ids) == len(images.labels) > 0
    assert images.domains == [name.split("/")[0] for name in images.ids]
    for index, name in enumerate(images.ids):
        image, label = images[index]
        assert (image.mode, label) == ("RGB", ["cat", "dog"].index(name.split("/")[1]))
        with Image.open(root / name) as original:
            assert np.array_equal(np.asarray(image), np.asarray(original))
    with pytest.raises(IndexError):
        images[len(images)]


def test_missing_or_damaged_data_say_what_to_run(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(UserError, match=r"manifest\.json is missing; run: dvc repro prepare"):
        load_prepared(target)
    run(make(tmp_path / "raw", {"cat": 60, "dog": 60}), target)
    whole = {file: (target / file).read_bytes() for file in FILES}
    one_batch = whole["images.arrow"].rindex(b"id", 0, len(whole["images.arrow"]) // 2)
    for file, content in [
        ("manifest.json", b"{"),
        ("manifest.json", b"[]"),
        ("manifest.json", b"{}"),
        ("manifest.json", whole["manifest.json"].replace(b'"train": 72', b'"train": 73')),
        ("images.arrow", b""),
        ("images.arrow", b"garbage"),
        ("images.arrow", whole["images.arrow"][:one_batch]),
        ("images.arrow", whole["images.arrow"][:-2000]),
    ]:
        assert content != whole[file]
        (target / file).write_bytes(content)
        with pytest.raises(UserError, match=r"is damaged.*; run: dvc repro prepare --force"):
            load_prepared(target)
        (target / file).write_bytes(whole[file])
    load_prepared(target)
    (target / "images.arrow").unlink()
    with pytest.raises(UserError, match=r"images\.arrow is missing; run: dvc repro prepare"):
        load_prepared(target)


@pytest.mark.slow
def test_openmoji_end_to_end_keeps_every_drawing_in_one_split(tmp_path: Path) -> None:
    manifest = prepare(dataset_section(name="openmoji", domains=["color"]), Sides(70, 70), tmp_path / "out")
    assert sum(manifest["totals"].values()) == 1898
    assert manifest["license"] == "CC BY-SA 4.0"
    prepared = load_prepared(tmp_path / "out")
    pixels: list[set[bytes]] = []
    for split, share in {"train": 0.6, "val": 0.15, "test": 0.25}.items():
        images = prepared.images(split)
        assert len(images) / 1898 == pytest.approx(share, abs=0.01)
        pixels.append({images[index][0].tobytes() for index in range(len(images))})
    assert sum(len(found) for found in pixels) == len(set().union(*pixels))


def test_images_that_arrive_meanwhile_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC would note them for what was prepared without them."""
    monkeypatch.chdir(tmp_path)
    root, find = make(tmp_path / "raw", {"cat": 12, "dog": 12}), stage.open_source
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["dataset"].update(name="image_folder", root="raw", domains=None)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))

    def found(*arguments: Any) -> Any:
        source = find(*arguments)
        shutil.copy(root / "cat" / "000.png", root / "cat" / "late.png")
        return source

    monkeypatch.setattr(stage, "open_source", found)
    with pytest.raises(UserError, match=r"^raw/cat/late.png was changed while the stage prepare was under"):
        main()
    assert "late" not in (tmp_path / "data" / "prepared" / "manifest.json").read_text()


def test_a_users_mistake_is_one_sentence_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = Path(__file__).parents[2] / "params.yaml"
    text = params.read_text().replace("name: openmoji ", "name: image_folder ")
    assert text != params.read_text()
    (tmp_path / "params.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        boundary.run(main)
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: dataset.root data/raw does not exist")
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "data").exists()
