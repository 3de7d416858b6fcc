"""TerraIncognita: camera traps at four places, 10 classes; DomainBed's part of Caltech Camera Traps."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config.datasets import Facts, register
from pipeline.config.params import Dataset
from pipeline.datasets.archives import find, unpack
from pipeline.datasets.domains import domain_folders, domain_source, images_per_domain
from pipeline.datasets.source import ClassFolder, Source, select_domains
from pipeline.images.sizes import Sides
from stochca.errors import UserError

# What DomainBed's download.py makes of the labels of January 2021: 24,330 images.
FACTS = Facts(
    name="TerraIncognita",
    url="https://lila.science/datasets/caltech-camera-traps (CCT20 images, and the metadata of the whole)",
    classes=10,
    images={"location_100": 4_741, "location_38": 9_736, "location_43": 3_970, "location_46": 5_883},
    license="Community Data License Agreement, permissive variant 1.0",
    citation="Beery, Van Horn, Perona: Recognition in Terra Incognita, ECCV 2018.",
)
# What it made of earlier labels, and what most papers used: 24,788 (github.com/khanrc/miro, issue 9).
EARLIER = replace(
    FACTS, images={"location_100": 4_879, "location_38": 9_767, "location_43": 4_020, "location_46": 6_122}
)
CLASSES = ("bird", "bobcat", "cat", "coyote", "dog", "empty", "opossum", "rabbit", "raccoon", "squirrel")

IMAGES = "eccv_18_all_images_sm"
IMAGE_ARCHIVES = ("eccv_18_all_images_sm.tar.gz", "terra_incognita_images.tar.gz")
# Labels of all of Caltech Camera Traps, or of the part CCT20; each may be packed.
LABELS = ("caltech_images_*.json", "eccv_18_annotation_files/*.json")
LABEL_ARCHIVES = ("caltech_camera_traps.json.zip", "eccv_18_annotations.tar.gz")

register("terra_incognita", __name__, facts=FACTS)


def load(dataset: Dataset, sides: Sides, versions: Sequence[Facts] = (FACTS, EARLIER)) -> Source:
    """The images and labels of Caltech Camera Traps, or the folders that DomainBed makes of them."""
    facts = versions[0]
    root = Path(dataset.root).expanduser()
    base = root / "terra_incognita" if (root / "terra_incognita").is_dir() else root
    if any((base / place).exists() for place in (IMAGES, *IMAGE_ARCHIVES)):
        folders = _labelled(base, select_domains(dataset.domains, list(facts.images)), facts)
    else:
        folders = domain_folders(dataset, facts, folders=["terra_incognita"])
    counts = images_per_domain(dataset, facts, folders)
    whole = (v for v in versions if all(v.images[domain] == count for domain, count in counts.items()))
    return domain_source(dataset, sides, next(whole, facts), folders)


def _labelled(base: Path, domains: Sequence[str], facts: Facts) -> list[ClassFolder]:
    """The images of `domains`; one that shows animals of several classes is in all of these."""
    images = find(base, facts.described, folder=IMAGES, archives=IMAGE_ARCHIVES)
    members: dict[tuple[str, str], set[str]] = {}
    for path in _label_files(base, facts):
        for domain, class_name, file in _labels(path):
            if domain in domains and class_name in CLASSES:
                members.setdefault((domain, class_name), set()).add(file)
    # A name that leads elsewhere is none of these images either.
    missing = sorted(
        file
        for file in set().union(*members.values())
        if Path(file).name != file or not (images / file).is_file()
    )
    if missing:
        raise UserError(
            f"{len(missing):,} images of {facts.name} are missing in {images}, first {missing[0]}; download "
            f"{IMAGE_ARCHIVES[0]} from {facts.url} again, or unpack it again"
        )
    return [
        ClassFolder(name, images, f"{domain}/{name}", sorted(members[domain, name]), domain)
        for domain in domains
        for name in CLASSES
        if (domain, name) in members
    ]


def _label_files(base: Path, facts: Facts) -> list[Path]:
    for pattern, archive in zip(LABELS, LABEL_ARCHIVES, strict=True):
        if found := sorted(base.glob(pattern)):
            return found
        if (base / archive).is_file() and (found := sorted(unpack(base / archive).glob(pattern))):
            return found
    raise UserError(
        f"{base} holds the images of {facts.name} but no labels, {' or '.join(LABELS)}, nor the archive "
        f"{' or '.join(LABEL_ARCHIVES)}; download {facts.described} and put them there"
    )


def _labels(path: Path) -> Iterator[tuple[str, str, str]]:
    """Domain, class and file name of every label in a file of the format COCO Camera Traps."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        classes = {category["id"]: str(category["name"]) for category in content["categories"]}
        images = {
            image["id"]: (f"location_{image['location']}", str(image["file_name"]))
            for image in content["images"]
        }
        for annotation in content["annotations"]:
            if annotation["image_id"] in images:
                domain, file = images[annotation["image_id"]]
                yield domain, classes[annotation["category_id"]], file
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} holds no labels in the format COCO Camera Traps ({type(error).__name__}: {error}); "
            "download it again"
        ) from None
