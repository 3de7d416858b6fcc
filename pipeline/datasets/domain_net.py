"""DomainNet, cleaned: 586,575 images of 345 classes, from clip art to photographs."""

from pathlib import Path, PurePosixPath

from pipeline.config.datasets import Facts, register
from pipeline.config.params import Dataset
from pipeline.datasets.archives import find
from pipeline.datasets.domains import class_folders, domain_source
from pipeline.datasets.official import read_table
from pipeline.datasets.source import LEFT_OUT, ClassFolder, Problem, Source, select_domains
from pipeline.images.sizes import Sides
from stochca.errors import UserError

FACTS = Facts(
    name="DomainNet",
    url="https://ai.bu.edu/M3SDA/",
    classes=345,
    images={  # per domain, cleaned; numbers from that page
        "clipart": 48_129,
        "infograph": 51_605,
        "painting": 72_266,
        "quickdraw": 172_500,
        "real": 172_947,
        "sketch": 69_128,
    },
    license="for non-commercial research and education only, under fair use",
    citation="Peng, Bai, Xia, Huang, Saenko, Wang: Moment Matching for Multi-Source Domain Adaptation, "
    "ICCV 2019.",
)

register("domain_net", __name__, facts=FACTS)


def load(dataset: Dataset, sides: Sides, facts: Facts = FACTS) -> Source:
    """The domains' zips, or the folders that they hold, in `dataset.root`.

    Where the official lists DOMAIN_train.txt and DOMAIN_test.txt lie beside them, the images are those of
    both lists; without them, the folder must hold exactly the images of the cleaned version.
    """
    domains = select_domains(dataset.domains, list(facts.images))
    root = Path(dataset.root).expanduser()
    base = next((root / name for name in ("domain_net", "DomainNet") if (root / name).is_dir()), root)
    folders: list[ClassFolder] = []
    problems: list[Problem] = []
    for domain in domains:
        folder = find(base, facts.described, folder=domain, archives=[f"{domain}.zip"])
        found = class_folders(folder, domain)
        lists = [base / f"{domain}_{part}.txt" for part in ("train", "test")]
        if any(path.exists() for path in lists):
            found, unlisted = _listed(domain, found, lists, facts)
            problems += unlisted
        elif (count := sum(len(of_class.names) for of_class in found)) > facts.images[domain]:
            raise UserError(
                f"the domain {domain} of {facts.name} has {facts.images[domain]:,} images in the cleaned "
                f"version, but {folder} has {count:,}; download {lists[0].name} and {lists[1].name} from "
                f"{facts.url} into {base}, which say which of them count"
            )
        folders += found
    return domain_source(dataset, sides, facts, folders, problems)


def _listed(
    domain: str, found: list[ClassFolder], lists: list[Path], facts: Facts
) -> tuple[list[ClassFolder], list[Problem]]:
    """The images that the lists name, and a problem that counts the others.

    Raises:
        UserError: a list is missing, or an image that it names.
    """
    named: dict[str, set[str]] = {}
    for path in lists:
        for line in read_table(path):
            file = PurePosixPath(line)
            named.setdefault(file.parent.name, set()).add(file.name)
    there = {of_class.class_name: set(of_class.names) for of_class in found}
    missing = [
        f"{domain}/{name}/{file}"
        for name, files in sorted(named.items())
        for file in sorted(files - there.get(name, set()))
    ]
    if missing:
        raise UserError(
            f"{len(missing):,} of the {sum(map(len, named.values())):,} images that {lists[0]} and "
            f"{lists[1].name} name are missing, first {missing[0]}; download {domain}.zip from {facts.url} "
            "again, or unpack it again"
        )
    kept = [
        of_class._replace(names=[file for file in of_class.names if file in named[of_class.class_name]])
        for of_class in found
        if of_class.class_name in named
    ]
    left = sum(map(len, there.values())) - sum(map(len, named.values()))
    problem = f"holds {left:,} images that the cleaned version's lists do not name"
    return kept, [Problem(file=domain, problem=problem, action=LEFT_OUT)] if left else []
