"""What the benchmarks of domain generalization have in common: DOMAIN/CLASS/*, whole or refused."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pipeline.config.params import Dataset
from pipeline.datasets.archives import find
from pipeline.datasets.official import Facts, counted
from pipeline.datasets.source import Problem, Record, Source
from pipeline.images.decoding import EXTENSIONS, Decoded, decode
from pipeline.images.image_files import printable
from pipeline.images.sizes import Sides
from stochca.errors import UserError


class ClassFolder(NamedTuple):
    """The images of one class in one domain."""

    domain: str
    class_name: str
    path: Path
    place: str  # begins the ids of the images
    names: list[str]  # of the files, in order; no paths, because there may be half a million


def find_root(
    dataset: Dataset, facts: Facts, *, folders: Sequence[str], archives: Sequence[str], marker: str
) -> Path:
    """The folder that holds those of the domains: one of `folders`, in `dataset.root` or its archive.

    Args:
        marker: the folder of a domain, by which `dataset.root` itself is known.

    Raises:
        UserError: there is none, or the archive is damaged.
    """
    root = Path(dataset.root).expanduser()
    for folder in folders[1:]:
        if (root / folder).is_dir():
            return root / folder
    return find(root, facts.described, folder=folders[0], archives=archives, marker=marker)


def domain_folder(base: Path, facts: Facts, domain: str, names: Sequence[str] = ()) -> Path:
    """The folder of a domain in `base`, under the first of `names` that is there.

    Raises:
        UserError: none is.
    """
    for name in names or (domain,):
        if (base / name).is_dir():
            return base / name
    raise UserError(
        f"{base} holds no folder {' or '.join(names or (domain,))}, the domain {domain} of {facts.name}; "
        f"download {facts.described} again, or name the domains to use in dataset.domains"
    )


def class_folders(folder: Path, domain: str, place: str | None = None) -> list[ClassFolder]:
    """The class folders in `folder`, in order; hidden files and files that are no images are passed over."""
    place = place or domain
    return [
        ClassFolder(domain, printable(name), folder / name, f"{place}/{printable(name)}", names)
        for name in _listed(folder, folders=True)
        if (names := [file for file in _listed(folder / name) if _is_image(file)])
    ]


def domain_source(
    dataset: Dataset,
    sides: Sides,
    facts: Facts,
    domains: Sequence[str],
    folders: Sequence[ClassFolder],
    problems: Sequence[Problem] = (),
) -> Source:
    """The source of some domains of a benchmark.

    Args:
        facts: with the number of images per domain.

    Raises:
        UserError: a domain holds more or fewer images, or all of them other classes, than is official.
    """
    classes = sorted({folder.class_name for folder in folders})
    counts = images_per_domain(domains, folders)
    _check_counts(dataset, facts, counts, classes, folders)
    picture = partial(decode, short_side=sides.stored, max_megapixels=dataset.max_megapixels)
    return Source(
        layout=dataset.name,
        summary=f"{facts.name}: {counted(len(classes), counts)}",
        classes=classes,
        domains=list(domains),
        records=partial(_records, folders, picture),
        count=sum(counts.values()),
        stored_side=sides.stored,
        root=dataset.root,
        license=facts.license,
        attribution=facts.attribution,
        problems=list(problems),
    )


def images_per_domain(domains: Sequence[str], folders: Sequence[ClassFolder]) -> dict[str, int]:
    counts = dict.fromkeys(domains, 0)
    for folder in folders:
        counts[folder.domain] += len(folder.names)
    return counts


def _records(folders: Sequence[ClassFolder], picture: Callable[[bytes], Decoded]) -> Iterator[Record]:
    for folder in folders:
        for name in folder.names:
            id = f"{folder.place}/{printable(name)}"
            yield Record(
                id=id,
                class_name=folder.class_name,
                domain=folder.domain,
                group=id,
                read=(folder.path / name).read_bytes,
                decode=picture,
            )


def _check_counts(
    dataset: Dataset,
    facts: Facts,
    counts: Mapping[str, int],
    classes: Sequence[str],
    folders: Sequence[ClassFolder],
) -> None:
    expected = {domain: facts.images[domain] for domain in counts}
    # Some domains alone may lack a class.
    number = facts.classes if len(counts) == len(facts.images) else len(classes)
    if counts == expected and len(classes) == number:
        return
    raise UserError(
        f"{facts.name} has {counted(number, expected)}, but dataset.root {dataset.root} has "
        f"{counted(len(classes), counts)}{_gap(expected, counts, classes, folders)}; "
        f"download {facts.described} again, or unpack it again"
    )


def _gap(
    expected: Mapping[str, int],
    counts: Mapping[str, int],
    classes: Sequence[str],
    folders: Sequence[ClassFolder],
) -> str:
    """The first class of which a domain with too few images has none, though others have."""
    for domain in expected:
        if counts[domain] < expected[domain]:
            there = {folder.class_name for folder in folders if folder.domain == domain}
            for name in classes:
                if name not in there:
                    return f" and none of the class {name} in {domain}"
    return ""


def _listed(folder: Path, *, folders: bool = False) -> list[str]:
    """The names of the files, or of the folders, in a folder; in order."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and (entry.is_dir() if folders else entry.is_file())
            )
    except OSError as error:
        raise UserError(
            f"the folder {folder} can't be read: {error.strerror}; check its permissions"
        ) from None


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122  a path would cost ten times as much
