"""What the benchmarks with official lists of images have in common: their facts, checked, and a `Source`."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.config.datasets import Facts
from pipeline.config.params import Dataset
from pipeline.datasets.source import Problem, Record, Source, select_domains
from pipeline.images.sizes import Sides
from stochca.errors import UserError, one_line

if TYPE_CHECKING:
    from pipeline.images.decoding import Decoded


class Photo(NamedTuple):
    """One image of an official list."""

    id: str  # as the list names it
    path: Path
    class_name: str
    split: str


def official_source(
    dataset: Dataset,
    sides: Sides,
    facts: Facts,
    photos: Sequence[Photo],
    classes: Sequence[str],
    decode: "Callable[[bytes], Decoded] | None" = None,
) -> Source:
    """The source of a benchmark whose lists were read; every file that they name must be there.

    Args:
        decode: makes a picture of an image file where that is more than to open it.

    Raises:
        UserError: the numbers are not the official ones, a file is missing, or `dataset.domains` names one.
    """
    domains = select_domains(dataset.domains)
    _check_whole(dataset, facts, photos, classes)

    def records() -> Iterator[Record]:
        for photo in photos:
            yield Record(photo.id, photo.class_name, photo.path.read_bytes, decode, photo.split)

    return benchmark_source(dataset, sides, facts, classes, domains, facts.images, records)


def benchmark_source(
    dataset: Dataset,
    sides: Sides,
    facts: Facts,
    classes: Sequence[str],
    domains: Sequence[str],
    images: Mapping[str, int],
    records: Callable[[], Iterator[Record]],
    problems: Sequence[Problem] = (),
) -> Source:
    """The source of a benchmark that was found to be whole; `images` are the numbers by split or domain."""
    return Source(
        layout=dataset.name,
        summary=f"{facts.name}: {counted(len(classes), images)}",
        classes=list(classes),
        domains=list(domains),
        records=records,
        count=sum(images.values()),
        stored_side=sides.stored,
        root=dataset.root,
        license=facts.license,
        attribution=facts.attribution,
        problems=list(problems),
    )


def _check_whole(dataset: Dataset, facts: Facts, photos: Sequence[Photo], classes: Sequence[str]) -> None:
    listed = Counter(photo.split for photo in photos)
    counts = {split: listed[split] for split in facts.images}
    if counts != dict(facts.images) or len(set(classes)) != facts.classes:
        raise UserError(
            f"{facts.name} has {counted(facts.classes, facts.images)}, but the lists in dataset.root "
            f"{dataset.root} have {counted(len(set(classes)), counts)}; download {facts.described} again"
        )
    known = set(classes)
    for photo in photos:
        name = PurePosixPath(photo.id)
        if photo.class_name not in known:
            problem = f"says that {photo.id} is a {photo.class_name}, which is no class of it"
        elif name.is_absolute() or ".." in name.parts:
            problem = f"names {photo.id}, which leads out of its folder"
        else:
            continue
        raise UserError(
            f"a list of {facts.name} in dataset.root {dataset.root} {problem}; "
            f"download {facts.described} again"
        )
    missing = [photo.path for photo in photos if not photo.path.is_file()]
    if missing:
        raise UserError(
            f"{len(missing):,} of the {len(photos):,} images of {facts.name} are missing in dataset.root "
            f"{dataset.root}, first {missing[0]}; download {facts.described} again, or unpack it again"
        )


def counted(classes: int, images: Mapping[str, int]) -> str:
    """``200 classes and 5,994 train + 5,794 test images``."""
    parts = [f"{count:,} {split}" for split, count in images.items()]
    return f"{classes} classes and {' + '.join(parts) or 'no'} images"


def read_table(path: Path) -> dict[str, str]:
    """A text file with a key and a value on every line; the value may hold spaces.

    Raises:
        UserError: the file is missing, no text, or has a line without a value.
    """
    lines = _read_text(path).splitlines()
    table = dict(line.strip().split(maxsplit=1) for line in lines if len(line.split()) > 1)
    if len(table) != sum(bool(line.strip()) for line in lines):
        raise UserError(f"{path} has a line without two columns, or a key twice; download the dataset again")
    return table


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        UserError: the file is missing or no text.
    """
    return [line.strip() for line in _read_text(path).splitlines() if line.strip()]


def read_matlab(path: Path, *names: str) -> list[Any]:
    """Variables of a MATLAB file, as NumPy arrays.

    Raises:
        UserError: the file is missing, damaged, or lacks one of them.
    """
    from scipy.io import loadmat

    _check_there(path)
    try:
        variables = loadmat(path, variable_names=names)
    except Exception as error:  # scipy raises nearly anything on damaged files
        why = one_line(error)
        raise UserError(
            f"{path} can't be read as a MATLAB file ({why}); download the dataset again"
        ) from None
    for name in names:
        if name not in variables:
            raise UserError(f"{path} lacks the variable {name}; download the dataset again")
    return [variables[name] for name in names]


def items(cells: Any) -> list[Any]:
    """The contents of an array of MATLAB cells that hold one text or number each, or of a plain array."""
    return [cell.item() if hasattr(cell, "item") else cell for cell in cells.ravel()]


def _read_text(path: Path) -> str:
    _check_there(path)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text; download the dataset again") from None


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path} is missing; download the dataset again, or unpack it again")
