"""Miniatures of the benchmarks of domain generalization, in the layouts in which they are downloaded."""

import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pipeline.config.datasets import Facts
from pipeline.config.params import Dataset
from pipeline.datasets.source import Source
from pipeline.images.sizes import Sides
from stochca.errors import UserError
from tests.pipeline.datasets.miniatures import opened
from tests.pipeline.sections import dataset_section


def draw(root: Path, *names: str) -> Path:
    """Images that all differ, under these names below `root`."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 9), (number % 256, number // 256, 7)).save(path)
    return root


def miniature(facts: Facts, classes: int, images: dict[str, int]) -> Facts:
    """The facts of a benchmark as small as the test's."""
    assert set(images) == set(facts.images)
    return replace(facts, classes=classes, images=images)


def params(name: str, root: Path, domains: list[str] | None = None) -> Dataset:
    return dataset_section(name=name, root=str(root), domains=domains)


SIDES = Sides.of(70, None)


def found(source: Source) -> dict[str, tuple[str, str]]:
    """Class and domain by id, in order; every picture can be read."""
    records = list(source.records())
    assert [record.id for record in source.records()] == [record.id for record in records]
    assert len({record.id for record in records}) == len(records) == source.count
    for record in records:
        assert record.split is None
        assert record.group is None
        assert opened(record, SIDES).size == (12, 9)
    return {record.id: (record.class_name, record.domain) for record in records}


def refused(load: Callable[[], Source], *words: str) -> None:
    with pytest.raises(UserError) as error:
        load()
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def pack(folder: Path, archive: Path) -> Path:
    """The folder under its own name in an archive, which takes its place."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as target:
            for path in sorted(folder.rglob("*")):
                target.write(path, path.relative_to(folder.parent))
    else:
        with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as target:
            target.add(folder, folder.name)
    folder.rename(folder.with_name(f"before {folder.name}"))
    return archive
