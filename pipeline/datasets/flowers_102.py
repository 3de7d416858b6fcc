"""Oxford Flowers 102: 8,189 photographs of 102 kinds of flowers, with the official split."""

from pathlib import Path

from pipeline.config.datasets import Facts, register
from pipeline.config.params import Dataset
from pipeline.datasets.archives import find
from pipeline.datasets.official import Photo, items, official_source, read_matlab
from pipeline.datasets.source import Source
from pipeline.images.sizes import Sides
from stochca.errors import UserError

FACTS = Facts(
    name="Oxford Flowers 102",
    url="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
    classes=102,
    images={"train": 1_020, "val": 1_020, "test": 6_149},
    license="not stated by its authors",
    citation="Nilsback, Zisserman: Automated flower classification over a large number of classes, "
    "ICVGIP 2008.",
)
SETS = {"train": "trnid", "val": "valid", "test": "tstid"}  # as setid.mat calls them

register("flowers_102", __name__, facts=FACTS)


def load(dataset: Dataset, sides: Sides, facts: Facts = FACTS) -> Source:
    """102flowers.tgz, or its jpg/, beside imagelabels.mat and setid.mat, in `dataset.root`.

    The classes have numbers but no names there, so they are called class_001 and so on.
    """
    root = Path(dataset.root).expanduser()
    images = find(root, facts.described, folder="jpg", archives=["102flowers.tgz"])
    labels = [int(label) for label in items(*read_matlab(root / "imagelabels.mat", "labels"))]
    sets = read_matlab(root / "setid.mat", *SETS.values())
    photos = []
    for split, numbers in zip(SETS, sets, strict=True):
        for number in sorted(int(number) for number in items(numbers)):
            if not 1 <= number <= len(labels):
                raise UserError(
                    f"setid.mat in dataset.root {root} names image {number} of {len(labels)} in "
                    f"imagelabels.mat; download {facts.described} again"
                )
            name = f"image_{number:05}.jpg"
            photos.append(Photo(f"jpg/{name}", images / name, _class_name(labels[number - 1]), split))
    classes = [_class_name(number) for number in sorted(set(labels))]
    return official_source(dataset, sides, facts, photos, classes)


def _class_name(number: int) -> str:
    return f"class_{number:03}"
