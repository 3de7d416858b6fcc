"""What the benchmarks of domain generalization have in common: DOMAIN/CLASS/*, whole or refused."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.config.datasets import Facts
from pipeline.config.params import Dataset
from pipeline.datasets.archives import find
from pipeline.datasets.official import benchmark_source, counted
from pipeline.datasets.source import ClassFolder, Problem, Source, folder_records, select_domains, shown
from pipeline.images.image_files import named_like_an_image, printable
from pipeline.images.sizes import Sides
from stochca.errors import UserError


def domain_benchmark(official: Facts, **places: Any) -> Callable[..., Source]:
    """The `load` of a benchmark that is no more than folders, where `places` says (see `domain_folders`)."""

    def load(dataset: Dataset, sides: Sides, facts: Facts = official) -> Source:
        """What is in `dataset.root`, packed or not; a `UserError` where it is not there, or not whole."""
        return domain_source(dataset, sides, facts, domain_folders(dataset, facts, **places))

    return load


def class_folders(folder: Path, domain: str, place: str | None = None) -> list[ClassFolder]:
    """The class folders in `folder`, in order; hidden files and files that are no images are passed over."""
    found = []
    for entry in shown(folder):
        if entry.is_dir():
            path, name = Path(entry.path), printable(entry.name)
            names = [file.name for file in shown(path) if file.is_file() and named_like_an_image(file.name)]
            if names:
                found.append(ClassFolder(name, path, f"{place or domain}/{name}", names, domain))
    return found


def domain_folders(
    dataset: Dataset,
    facts: Facts,
    *,
    folders: Sequence[str],
    archives: Sequence[str] = (),
    names: Mapping[str, Sequence[str]] | None = None,
    classes_in: Callable[[Path, str], list[ClassFolder]] = class_folders,
) -> list[ClassFolder]:
    """The class folders of the chosen domains.

    Args:
        folders: what the folder that holds the domains' is called in `dataset.root`, and the first of them in
            the archives; `dataset.root` itself is known by the folder of the first domain.
        names: what the folders of domains are called, where it is not as the domain; the first counts.
        classes_in: finds the class folders in the folder of a domain.

    Raises:
        UserError: a folder is not there, or an archive is damaged.
    """
    domains = select_domains(dataset.domains, list(facts.images))
    names = {domain: (names or {}).get(domain, (domain,)) for domain in domains}
    root = Path(dataset.root).expanduser()
    base = next((root / folder for folder in folders[1:] if (root / folder).is_dir()), None)
    if base is None:
        first = names[domains[0]]
        marker = next((name for name in first if (root / name).is_dir()), first[0])
        base = find(root, facts.described, folder=folders[0], archives=archives, marker=marker)
    found = []
    for domain in domains:
        folder = next((base / name for name in names[domain] if (base / name).is_dir()), None)
        if folder is None:
            raise UserError(
                f"{base} holds no folder {' or '.join(names[domain])}, the domain {domain} of {facts.name}; "
                f"download {facts.described} again, or name the domains to use in dataset.domains"
            )
        found += classes_in(folder, domain)
    return found


def domain_source(
    dataset: Dataset,
    sides: Sides,
    facts: Facts,
    folders: Sequence[ClassFolder],
    problems: Sequence[Problem] = (),
) -> Source:
    """The source of some domains of a benchmark, or of all.

    Args:
        facts: with the number of images per domain.

    Raises:
        UserError: a domain holds more or fewer images, or all of them other classes, than is official.
    """
    counts = images_per_domain(dataset, facts, folders)
    expected = {domain: facts.images[domain] for domain in counts}
    classes = sorted({folder.class_name for folder in folders})
    # Some domains alone may lack a class.
    number = facts.classes if len(counts) == len(facts.images) else len(classes)
    if counts != expected or len(classes) != number:
        there = {(folder.domain, folder.class_name) for folder in folders}
        gaps = (
            f" and none of the class {name} in {domain}"
            for domain in expected
            if counts[domain] < expected[domain]
            for name in classes
            if (domain, name) not in there
        )
        raise UserError(
            f"{facts.name} has {counted(number, expected)}, but dataset.root {dataset.root} has "
            f"{counted(len(classes), counts)}{next(gaps, '')}; "
            f"download {facts.described} again, or unpack it again"
        )
    records = partial(folder_records, folders)
    return benchmark_source(dataset, sides, facts, classes, list(counts), counts, records, problems)


def images_per_domain(dataset: Dataset, facts: Facts, folders: Sequence[ClassFolder]) -> dict[str, int]:
    """Of the chosen domains, in the benchmark's order."""
    return {
        domain: sum(len(folder.names) for folder in folders if folder.domain == domain)
        for domain in select_domains(dataset.domains, list(facts.images))
    }
