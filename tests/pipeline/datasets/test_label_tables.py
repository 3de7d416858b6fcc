"""Tables of labels for one's own images: as they come, or refused in one sentence with file and line."""

import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from pipeline.datasets import image_folder
from pipeline.datasets.source import Source
from pipeline.images.prepared import load_prepared
from pipeline.images.protocol import images_for
from pipeline.images.sizes import Sides
from pipeline.prepare import prepare
from stochca.errors import UserError
from tests.pipeline.datasets.miniatures import photograph
from tests.pipeline.sections import dataset_section

LABELS = "path,label\na.png,cat\nsub/b.png,dog\n"


def write(root: Path, table: str, name: str = "labels.csv") -> Path:
    """Four images, and a table."""
    for number, image in enumerate(("a.png", "sub/b.png", "sub/c.png", "d.png")):
        photograph(root / image, number, (20, 16))
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(table)
    return root


def load(root: Path, **options: Any) -> Source:
    dataset = dataset_section(name="image_folder", root=str(root), **options)
    return image_folder.load(dataset, Sides.of(14, None))


def found(source: Source) -> list[tuple[Any, ...]]:
    records = list(source.records())
    assert len(records) == source.count
    assert all(record.read() for record in records)
    return [(r.id, r.class_name, r.split, r.domain, r.group) for r in records]


def refused(root: Path, *words: str, labels: str | None = "labels.csv", **options: Any) -> None:
    with pytest.raises(UserError) as error:
        load(root, labels=labels, **options)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_a_table_names_images_and_labels(tmp_path: Path) -> None:
    source = load(write(tmp_path, LABELS), labels="labels.csv")
    assert (source.layout, source.classes, source.domains) == ("table", ["cat", "dog"], ["all"])
    assert found(source) == [("a.png", "cat", None, "all", None), ("sub/b.png", "dog", None, "all", None)]
    assert (source.grouped, source.paired) == (False, False)
    problems = {problem["file"]: problem["problem"] for problem in source.problems}
    assert problems == {"labels.csv": "does not name 2 images, of which the first is d.png"}
    for word in ("labels.csv", "2 classes (cat, dog)", "2 images"):
        assert word in source.summary


def test_split_domain_and_group_are_read_where_they_stand(tmp_path: Path) -> None:
    table = (
        "path,label,split,domain,group\na.png,cat,Training,day,p1\nsub/b.png,dog,test,night,p2\n"
        "sub/c.png,dog,valid,day,\n./sub/../d.png,cat,train,day,p1\n"
    )
    source = load(write(tmp_path, table), labels="labels.csv")
    assert found(source) == [
        ("a.png", "cat", "train", "day", "p1"),
        ("sub/b.png", "dog", "test", "night", "p2"),
        ("sub/c.png", "dog", "val", "day", None),
        ("d.png", "cat", "train", "day", "p1"),
    ]
    assert (source.grouped, source.paired, source.domains) == (True, False, ["day", "night"])
    assert [problem["problem"] for problem in source.problems if "split" in problem["problem"]] == [
        "names the split 'train', which is also called 'Training'"
    ]
    assert [row[0] for row in found(load(tmp_path, labels="labels.csv", domains=["day"]))] == [
        *("a.png", "sub/c.png", "d.png")
    ]
    pairs = "path,label,domain,group\na.png,cat,day,p1\nsub/b.png,dog,day,p2\nd.png,cat,night,p1\n"
    assert load(write(tmp_path, pairs), labels="labels.csv").paired


def test_paths_are_told_from_the_table_or_from_the_root(tmp_path: Path) -> None:
    write(tmp_path, "path,label\nb.png,cat\na.png,dog\nsub/c.png,dog\n", "sub/labels.csv")
    assert [row[0] for row in found(load(tmp_path, labels="sub/labels.csv"))] == [
        *("sub/b.png", "a.png", "sub/c.png")
    ]
    absolute = f"path,label\n{tmp_path / 'a.png'},cat\n{tmp_path / 'd.png'},dog\n"
    assert len(found(load(write(tmp_path, absolute), labels=str(tmp_path / "labels.csv")))) == 2


def test_columns_by_other_names(tmp_path: Path) -> None:
    table = "path,diagnosis,patient\na.png,ill,7\nsub/b.png,well,7\nd.png,well,8\n"
    write(tmp_path, table)
    source = load(tmp_path, labels="labels.csv", label_column="diagnosis", group_column="patient")
    assert [row[1:] for row in found(source)] == [
        ("ill", None, "all", "7"),
        ("well", None, "all", "7"),
        ("well", None, "all", "8"),
    ]
    frame = pd.DataFrame({"path": ["a.png", "d.png"], "label": [0, 1]}, index=[5, 9])
    frame.to_parquet(tmp_path / "labels.parquet")
    frame.to_csv(tmp_path / "indexed.csv")
    for name in ("labels.parquet", "indexed.csv"):
        assert [row[:2] for row in found(load(tmp_path, labels=name))] == [("a.png", "0"), ("d.png", "1")]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_hugging_face_folder_is_recognised(kind: str, tmp_path: Path) -> None:
    """`datasets` reads the same rows."""
    write(tmp_path, "")
    (tmp_path / "labels.csv").unlink()
    frame = pd.DataFrame(
        {"file_name": ["a.png", "sub/b.png", "d.png"], "label": ["cat", "dog", "dog"], "age": [3, 4, 5]}
    )
    (tmp_path / "sub/c.png").unlink()
    path = tmp_path / f"metadata.{kind}"
    if kind == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        getattr(frame, f"to_{kind}")(path, index=False)
    source = load(tmp_path)
    theirs = datasets.load_dataset("imagefolder", data_dir=str(tmp_path), cache_dir=str(tmp_path / ".cache"))
    assert [row[1] for row in found(source)] == theirs["train"]["label"][:]
    assert source.problems == [
        {"file": path.name, "problem": "has columns that mean nothing here: age", "action": "not used"}
    ]
    assert [row[1] for row in found(load(tmp_path, label_column="age"))] == ["3", "4", "5"]


def test_a_table_in_each_folder_of_a_split(tmp_path: Path) -> None:
    for split in ("train", "Test"):
        write(tmp_path / split, "file_name,label\na.png,cat\nsub/b.png,dog\n", "metadata.csv")
    assert found(load(tmp_path)) == [
        (f"{split}/{name}", label, split.lower(), "all", None)
        for split in ("Test", "train")
        for name, label in (("a.png", "cat"), ("sub/b.png", "dog"))
    ]


def test_rows_that_are_wrong_are_named_by_their_line(tmp_path: Path) -> None:
    for table, *words in (
        ("path,label\na.png,cat\ngone.png,dog\nlost.png,dog", "line 3: the image gone.png is", "1 more"),
        (f"path,label\n{'x' * 300},cat\n", "line 2: the image xxx"),
        ("path,label\na\0.png,cat\n", "line 2"),
        ("path,label\na.png,cat\nd.png, \n", "labels.csv, line 3: the column label is empty"),
        ("path,label\na.png,cat\n,dog\n", "labels.csv, line 3: the column path is empty"),
        ("path,label,split\na.png,cat,train\nd.png,dog,trian", "line 3: the split must be train, val or"),
        ("path,label,split\na.png,cat,train\nd.png,dog,", "line 3: the column split is empty"),
        ("path,label,domain\na.png,cat,day\nd.png,dog,", "line 3: the column domain is empty"),
        ("path,label\n../x.png,cat\n", "line 2: the image ../x.png lies outside of dataset.root"),
        ("path,label\na.png,cat,1\n", "line 2, has 3 values for 2 columns"),
        (
            "path,label\na.png,cat\nd.png,dog\n./a.png,dog\n",
            "labels.csv, line 4: a.png has the label dog, but in ",
            "labels.csv, line 2 cat",
        ),
        (
            "path,label,split,group\na.png,cat,train,p1\nd.png,dog,test,p2\nsub/b.png,cat,test,p1\n",
            "labels.csv, line 4: the group p1 is in test, but in ",
            "labels.csv, line 2 in train",
        ),
    ):  # fmt: skip
        photograph(tmp_path / "x.png", 9)
        refused(write(tmp_path / "root", table), *words)


def test_tables_that_are_wrong_as_a_whole(tmp_path: Path) -> None:
    for table, *words in (
        ("name,label\na.png,cat", "labels.csv has no column path or file_name", "columns are name, label"),
        ("path,kind\na.png,cat", "no column label, which says the class; its columns are path, kind"),
        ("path,label,grop\na.png,cat,1", "the unknown column 'grop'; did you mean group?"),
        ("path,label,age\na.png,cat,1", "the unknown column 'age'; known are path, label, split, domain,"),
        ("path,label\na.png,cat\n", "labels.csv in dataset.root", "names only the class cat"),
        ("path,label\n", "names no image"),
        ("", "has no column path or file_name", "its columns are none"),
    ):  # fmt: skip
        refused(write(tmp_path, table), *words)
    write(tmp_path, LABELS)
    refused(tmp_path, "no column kind, which says the class", label_column="kind")
    refused(tmp_path, "no column patient, which dataset.group_column names", group_column="patient")
    refused(tmp_path, "dataset.labels gone.csv is no file in dataset.root", labels="gone.csv")
    shutil.copy(tmp_path / "labels.csv", tmp_path.parent / "outside.csv")
    refused(tmp_path, "is no file in dataset.root", labels="../outside.csv")
    refused(
        tmp_path, "holds no metadata.csv; name the table in dataset.labels", labels=None, label_column="a"
    )
    refused(tmp_path, "names day; allowed here are all", domains=["day"])


def test_a_row_that_is_repeated_counts_once(tmp_path: Path) -> None:
    source = load(write(tmp_path, f"{LABELS}a.png,cat\n"), labels="labels.csv")
    assert source.count == 2
    assert ("a.png", "used once") in {(problem["file"], problem["action"]) for problem in source.problems}


def modules(root: Path, images: int = 6) -> Path:
    """Twenty modules of cells, each with both classes and a black cell; two modules share a photograph."""
    lines = ["path,label,group"]
    for module in range(20):
        for cell in range(images + module % 3):
            name = f"{module:02}-{cell}.png"
            photograph(root / name, 11 * module + 17 * cell, (20 + module, 16 + cell))
            with Image.open(root / name) as image:
                ImageDraw.Draw(image).rectangle((0, 0, 9, 9), "white")
                image.save(root / name)
            lines.append(f"{name},{('good', 'bad')[cell % 2]},m{module}")
        Image.new("RGB", (20, 20)).save(root / f"{module:02}-black.png")
        lines.append(f"{module:02}-black.png,good,m{module}")
    shutil.copy(root / "00-0.png", root / "01-0.png")
    (root / "labels.csv").write_text("\n".join(lines))
    return root


def splits_of_modules(folder: Path) -> dict[str, set[str]]:
    table = load_prepared(folder).table
    found = defaultdict(set)
    for name, split in zip(table["id"], table["split"], strict=True):
        found[name[:2]].add(split)
    return found


def test_a_group_stays_in_one_split_with_its_duplicates_and_whole_in_every_fraction(tmp_path: Path) -> None:
    root = modules(tmp_path / "raw")
    trained = []
    for fraction in (1.0, 0.5, 0.25):
        dataset = dataset_section(
            name="image_folder", root=str(root), labels="labels.csv", train_fraction=fraction
        )
        manifest = prepare(dataset, Sides.of(14, None), tmp_path / "out")
        found = splits_of_modules(tmp_path / "out")
        assert all(len(splits) == 1 for splits in found.values())
        assert found["00"] == found["01"]  # one photograph of theirs is the same
        told = {problem["file"]: problem["action"] for problem in manifest["problems"]}
        assert told["01-0.png"] == "kept, in one split, and so are the groups m0 and m1"
        assert told["20 images"] == "join no groups"
        trained.append({module for module, splits in found.items() if splits == {"train"}})
        assert manifest["grouped"]
        for split in ("train", "val", "test"):
            assert manifest["counts"][split]["all"].keys() == {"good", "bad"}
    assert trained[2] < trained[1] < trained[0]
    assert [len(each) for each in trained] == pytest.approx([12, 6, 3], abs=1)


def test_ratios_and_held_out_domains_keep_groups_whole(tmp_path: Path) -> None:
    root = modules(tmp_path / "raw")
    lines = (root / "labels.csv").read_text().splitlines()
    domains = ["domain", *(("old", "new")[int(line[:2]) % 2] for line in lines[1:])]
    (root / "labels.csv").write_text("\n".join(f"{a},{b}" for a, b in zip(lines, domains, strict=True)))
    dataset = dataset_section(name="image_folder", root=str(root), labels="labels.csv")
    prepare(dataset, Sides.of(14, None), tmp_path / "out")
    prepared = load_prepared(tmp_path / "out")
    for protocol, target in (("sampling_ratios", "50"), ("leave_one_domain_out", "new")):
        images = images_for(prepared, protocol, target, 0)
        parts = [{name[:2] for name in part.ids} for part in (images.train, images.validation, images.test)]
        assert all(parts)
        assert not parts[0] & parts[1]
        assert not (parts[0] | parts[1]) & parts[2]


def test_a_split_without_its_table_is_not_replaced_by_a_draw(tmp_path: Path) -> None:
    write(tmp_path / "train", "file_name,label\na.png,cat\nsub/b.png,dog\n", "metadata.csv")
    photograph(tmp_path / "test_images/a.png", 9)
    refused(tmp_path, "folder test_images", "holds no metadata.csv, as train does", labels=None)


def test_folders_of_splits_without_a_column_are_told(tmp_path: Path) -> None:
    for split in ("train", "test"):
        photograph(tmp_path / f"{split}_images/a.png", len(split), (20, 16))
    table = "path,label\ntrain_images/a.png,cat\ntest_images/a.png,dog\n"
    (tmp_path / "labels.csv").write_text(table)
    problem = load(tmp_path, labels="labels.csv").problems[-1]
    assert problem["problem"] == "has no column split, and names images in test_images, train_images"
    lines = "path,label,split\ntrain_images/a.png,cat,train\ntest_images/a.png,dog,test\n"
    (tmp_path / "labels.csv").write_text(lines)
    assert load(tmp_path, labels="labels.csv").problems == []


def test_names_that_look_alike(tmp_path: Path) -> None:
    lines = "path,label,domain,group\na.png,cat,day,p1\nsub/b.png,{},{},P1\nd.png,dog,day,\n"
    refused(write(tmp_path, lines.format("Cat", "day")), "classes 'Cat' and 'cat', which look alike")
    refused(write(tmp_path, lines.format("dog", "Day")), "domains 'Day' and 'day', which look alike")
    source = load(write(tmp_path, lines.format("dog", "day")), labels="labels.csv")
    told = [problem for problem in source.problems if "groups" in problem["problem"]]
    assert told[0]["problem"] == "has the groups 'p1' and 'P1', which look alike"


def test_a_path_in_another_form_of_unicode_is_found(tmp_path: Path) -> None:
    photograph(tmp_path / "cafe\u0301/1.png", 1)
    photograph(tmp_path / "th\u00e9.png", 2)
    table = "path,label\ncaf\u00e9/1.png,cat\nthe\u0301.png,dog\n"
    source = load(write(tmp_path, table), labels="labels.csv")
    assert [row[0] for row in found(source)] == ["cafe\u0301/1.png", "th\u00e9.png"]


def test_a_path_that_may_be_either_of_two_images(tmp_path: Path) -> None:
    write(tmp_path, "path,label\na.png,cat\nc.png,dog\n", "sub/labels.csv")
    photograph(tmp_path / "sub/a.png", 9, (20, 16))
    words = ("labels.csv, line 2", "a.png may be sub/a.png, beside the table, or a.png")
    refused(tmp_path, *words, labels="sub/labels.csv")
    (tmp_path / "a.png").unlink()
    rows = found(load(tmp_path, labels="sub/labels.csv"))
    assert [(row[0], row[1]) for row in rows] == [("sub/a.png", "cat"), ("sub/c.png", "dog")]


def test_several_tables_of_hugging_face_in_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "file_name,label\na.png,cat\nd.png,dog\n", "metadata.csv")
    write(tmp_path, '{"file_name": "a.png", "label": "dog"}\n', "metadata.jsonl")
    refused(tmp_path, "holds metadata.csv and metadata.jsonl", "keep one", labels=None)


@pytest.mark.parametrize("other", ["0.0", "00"])
def test_a_number_in_two_ways_is_not_two_classes(tmp_path: Path, other: str) -> None:
    write(tmp_path, f"path,label\na.png,0\nsub/b.png,1\nd.png,{other}\n")
    refused(tmp_path, f"the classes '0' and '{other}', which look alike")


def test_what_programs_write_for_no_value(tmp_path: Path) -> None:
    table = "path,label,group\na.png,cat,nan\nsub/b.png,dog,p1\nsub/c.png,none,NA\n"
    source = load(write(tmp_path, table), labels="labels.csv")
    assert [(row[1], row[4]) for row in found(source)] == [("cat", None), ("dog", "p1"), ("none", None)]
    problems = [problem["problem"] for problem in source.problems]
    assert "says no value in the column group in 2 rows, first in line 2, nan" in problems
    write(tmp_path, LABELS + "sub/c.png,NA\n")
    refused(tmp_path, "labels.csv, line 4: the column label says NA", "write another")
    write(tmp_path, "path,label,domain\na.png,cat,<NA>\n")
    refused(tmp_path, "line 2: the column domain says <NA>")


@pytest.mark.parametrize("word", ["None", "NULL", "null", r"\N", "#N/A", "Unknown", "-1"])
def test_no_group_in_other_words(word: str, tmp_path: Path) -> None:
    source = load(
        write(tmp_path, f"path,label,group\na.png,None,{word}\nsub/b.png,dog,p1\nsub/c.png,None,{word}\n"),
        labels="labels.csv",
    )
    assert [(row[1], row[4]) for row in found(source)] == [("None", None), ("dog", "p1"), ("None", None)]


def test_tables_in_folders_with_the_name_of_the_images(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / f"pets_{split}", "file_name,label\na.png,cat\nsub/b.png,dog\n", "metadata.csv")
    assert {row[0]: row[2] for row in found(load(tmp_path))} == {
        f"pets_{split}/{name}": split for split in ("train", "test") for name in ("a.png", "sub/b.png")
    }
    lines = "path,label\npets_train/a.png,cat\npets_test/a.png,dog\n"
    (tmp_path / "labels.csv").write_text(lines)
    problem = load(tmp_path, labels="labels.csv").problems[-1]["problem"]
    assert problem == "has no column split, and names images in pets_test, pets_train"
