"""FGVC-Aircraft 2013b: 10,000 photographs of aircraft, by variant, family or manufacturer."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.datasets import Facts, register
from pipeline.config.params import Dataset
from pipeline.datasets.archives import find
from pipeline.datasets.official import Photo, official_source, read_lines, read_table
from pipeline.datasets.source import Source
from pipeline.images.sizes import Sides

if TYPE_CHECKING:
    from pipeline.images.decoding import Decoded

FACTS = Facts(
    name="FGVC-Aircraft 2013b",
    url="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
    classes=100,
    images={"train": 3_334, "val": 3_333, "test": 3_333},
    license="non-commercial research; the photographers keep the copyright",
    citation="Maji, Kannala, Rahtu, Blaschko, Vedaldi: Fine-Grained Visual Classification of Aircraft, "
    "arXiv 1306.5151, 2013.",
)
COARSER = {"family": 70, "manufacturer": 30}  # other levels, and how many classes they have
CLASS_LISTS = {"variant": "variants.txt", "family": "families.txt", "manufacturer": "manufacturers.txt"}
BANNER = 20  # pixels at the bottom that name the photographer and, the readme asks, are cut off
AS_IT_IS = 1_000_000  # pixels, larger than any side

register("fgvc_aircraft", __name__, facts=FACTS, sources=tuple(CLASS_LISTS))


def load(dataset: Dataset, sides: Sides, facts: Facts = FACTS) -> Source:
    """fgvc-aircraft-2013b.tar.gz, or what it holds, in `dataset.root`; `dataset.source` names the level."""
    level = dataset.source or "variant"
    folder = find(
        Path(dataset.root),
        facts.described,
        folder="fgvc-aircraft-2013b/data",
        archives=["fgvc-aircraft-2013b.tar.gz"],
        marker="variants.txt",
    )
    photos = []
    for split in facts.images:
        for number, name in read_table(folder / f"images_{level}_{split}.txt").items():
            photos.append(Photo(f"images/{number}.jpg", folder / f"images/{number}.jpg", name, split))
    facts = replace(facts, classes=COARSER.get(level, facts.classes))
    classes = read_lines(folder / CLASS_LISTS[level])
    picture = partial(_decode_without_banner, short_side=sides.stored, max_megapixels=dataset.max_megapixels)
    return official_source(dataset, sides, facts, photos, classes, picture)


def _decode_without_banner(content: bytes, *, short_side: int, max_megapixels: float) -> "Decoded":
    from pipeline.images.decoding import UnusableImage, decode, from_image

    whole = decode(content, short_side=AS_IT_IS, max_megapixels=max_megapixels)
    width, height = whole.image.size
    if height <= BANNER:
        raise UnusableImage(f"is only {height} pixels high, with a banner of {BANNER}")
    image = whole.image.crop((0, 0, width, height - BANNER))
    return from_image(image, short_side=short_side, lossless=whole.lossless)
