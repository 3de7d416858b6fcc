"""Images that DVC keeps in its cache, and has put links for."""

import subprocess
from pathlib import Path

import pytest

from pipeline.datasets import image_folder
from pipeline.datasets.source import Source
from pipeline.images.sizes import Sides
from stochca.errors import UserError
from tests.pipeline.datasets.miniatures import photograph
from tests.pipeline.sections import dataset_section

IDS = [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(2)]


def load(root: Path, labels: str | None = None) -> Source:
    dataset = dataset_section(name="image_folder", root=str(root), labels=labels)
    return image_folder.load(dataset, Sides.of(14, None))


@pytest.fixture(params=["", "../shared"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Images of a project of DVC, all of them links to its cache, wherever that is."""
    project = tmp_path / "project"
    root = project / "data" / "raw"
    for number, id in enumerate(IDS):
        photograph(root / id, number)
    (root / "labels.csv").write_text("path,label\n" + "".join(f"{id},{id[0]}\n" for id in IDS))
    commands = ["init --no-scm", "config cache.type symlink", "add --quiet data/raw"]
    if request.param:
        commands.insert(2, f"cache dir {request.param}")
    for command in commands:
        subprocess.run(["dvc", *command.split()], cwd=project, check=True, capture_output=True)
    assert all((root / id).is_symlink() for id in IDS)
    return root


def test_links_into_the_cache_are_read(root: Path, tmp_path: Path) -> None:
    source = load(root)
    assert [record.id for record in source.records()] == IDS
    assert all(record.read() for record in source.records())
    assert {problem["file"] for problem in source.problems} == {"labels.csv"}
    table = load(root, labels="labels.csv")
    assert [(record.id, record.class_name) for record in table.records()] == [(id, id[0]) for id in IDS]
    assert table.problems == []

    photograph(tmp_path / "secret.png", 9)
    (root / "cat/out.png").symlink_to(tmp_path / "secret.png")
    (root / "owl").symlink_to((root / IDS[0]).resolve().parent)  # a folder of the cache is none of images
    source = load(root)
    assert [record.id for record in source.records()] == IDS
    told = {problem["file"]: problem["action"] for problem in source.problems}
    assert told == {"labels.csv": "left out", "cat/out.png": "not followed", "owl": "not followed"}


def test_links_are_named_as_the_reason(tmp_path: Path) -> None:
    for number, id in enumerate(IDS):
        photograph(tmp_path / "elsewhere" / id, number)
        (tmp_path / "root" / id).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / id).symlink_to(tmp_path / "elsewhere" / id)
    with pytest.raises(
        UserError, match=r"cat holds no image \(for example cat/0.png is a link that leads out"
    ):
        load(tmp_path / "root")
    for id in IDS[2:]:
        (tmp_path / "elsewhere" / id).unlink()
    photograph(tmp_path / "root/cat/2.png", 2)
    with pytest.raises(UserError, match=r"dog holds no image \(for example dog/0.png is a link to nothing"):
        load(tmp_path / "root")
