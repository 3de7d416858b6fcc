import json
from pathlib import Path

import pytest

from pipeline.runtime.files import replace_file, replace_folder, sha256, write_json


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_sha256_of_a_published_example(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_write_json_round_trips_and_makes_parents(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b.json"
    write_json(target, {"name": "é", "values": [1, 2.5, None]})
    assert json.loads(target.read_text(encoding="utf-8")) == {"name": "é", "values": [1, 2.5, None]}
    assert names(target.parent) == {"b.json"}


@pytest.mark.parametrize("value", [float("nan"), object()])
def test_write_json_that_fails_keeps_the_old_file(tmp_path: Path, value: object) -> None:
    target = tmp_path / "b.json"
    target.write_text("old")
    with pytest.raises((ValueError, TypeError)):
        write_json(target, {"fine": 1, "not": value})
    assert target.read_text() == "old"
    assert names(tmp_path) == {"b.json"}


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with replace_file(target) as temporary:
        temporary.write_text("half")
        assert temporary.parent == target.parent  # a rename across file systems would copy
        assert not target.exists()
    assert target.read_text() == "half"
    assert names(tmp_path) == {"file"}


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for content in ("first", "second"):
        with replace_folder(target) as temporary:
            (temporary / content).write_text(content)
            assert not (target / content).exists()
    assert names(target) == {"second"}
    assert names(tmp_path) == {"folder"}


def test_a_folder_that_fails_keeps_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(RuntimeError), replace_folder(target) as temporary:  # noqa: PT012
        (temporary / "new").touch()
        raise RuntimeError
    assert names(target) == {"old"}
    assert names(tmp_path) == {"folder"}


def test_what_a_killed_run_left_behind_does_not_get_in(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with replace_folder(target) as temporary:
        leftover = temporary
    leftover.mkdir()
    (leftover / "half").touch()
    with replace_folder(target) as temporary:
        (temporary / "whole").touch()
    assert names(target) == {"whole"}
    assert names(tmp_path) == {"folder"}
