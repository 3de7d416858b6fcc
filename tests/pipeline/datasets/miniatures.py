"""Small versions of benchmarks, in exactly their layout, and how a source is looked at."""

import dataclasses
import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.config.datasets import Facts
from pipeline.config.params import Dataset
from pipeline.datasets.source import Record, Source
from pipeline.images.decoding import decode
from pipeline.images.sizes import Sides
from stochca.errors import UserError
from tests.pipeline.sections import dataset_section

SIDES = Sides.of(56, None)  # stored with a short side of 64


def colour(number: int) -> tuple[int, int, int]:
    """One that tells images apart, also after JPEG."""
    return (number * 40 % 250, number * 70 % 250, number * 110 % 250)


def photograph(path: Path, number: int, size: tuple[int, int] = (90, 70)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour(number)).save(path, quality=95)


def lines(path: Path, *texts: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{text}\n" for text in texts))


def matlab_cells(*values: Any) -> np.ndarray:
    """A column of cells, as MATLAB writes lists of texts."""
    cells = np.empty((len(values), 1), dtype=object)
    for place, value in enumerate(values):
        cells[place, 0] = value
    return cells


def miniature(facts: Facts, classes: int, **images: int) -> Facts:
    return dataclasses.replace(facts, classes=classes, images=images)


def params(name: str, root: Path, **options: Any) -> Dataset:
    return dataset_section(name=name, root=str(root), **options)


def pack(archive: Path, folder: Path, *names: str) -> None:
    """Put `names` in `folder` into an archive, and take them away."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for name in names:
                for path in sorted((folder / name).rglob("*")):
                    file.write(path, path.relative_to(folder))
    else:
        with tarfile.open(archive, "w" if archive.suffix == ".tar" else "w:gz") as file:
            for name in names:
                file.add(folder / name, name)


def found(source: Source) -> dict[str, tuple[str, str | None]]:
    """The class and split of every image, which are as many as announced and have names of their own."""
    records = list(source.records())
    assert len(records) == source.count
    images = {record.id: (record.class_name, record.split) for record in records}
    assert len(images) == source.count
    assert all(record.domain == "all" and record.group is None for record in records)
    assert [record.id for record in source.records()] == [record.id for record in records]
    return images


def opened(record: Record, sides: Sides = SIDES) -> Image.Image:
    """As it is stored."""
    content = record.read()
    if record.decode is not None:
        return record.decode(content).image
    return decode(content, short_side=sides.stored, max_megapixels=50).image


def check_pictures(source: Source, numbers: Mapping[str, int]) -> None:
    """Every image shows the colour of its number, so that no two were mixed up."""
    for record in source.records():
        image = opened(record)
        assert min(image.size) == source.stored_side
        middle = np.asarray(image, dtype=int)[image.height // 2, image.width // 2]
        assert np.abs(middle - colour(numbers[record.id])).max() < 6, record.id


def refused(message: BaseException | pytest.ExceptionInfo[UserError], *words: str) -> None:
    text = str(message.value if isinstance(message, pytest.ExceptionInfo) else message)
    assert "\n" not in text
    for word in words:
        assert word in text, text


def tar_of(archive: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz" if archive.name.endswith("gz") else "w") as file:
        for member, content in members:
            file.addfile(member, io.BytesIO(content))
    return archive
