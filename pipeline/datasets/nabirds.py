"""NABirds: 48,562 photographs of 555 kinds of North American birds, with the official split."""

from pathlib import Path

from pipeline.config.datasets import Facts, register
from pipeline.config.params import Dataset
from pipeline.datasets.archives import find
from pipeline.datasets.cub_200_2011 import read_lists
from pipeline.datasets.official import official_source
from pipeline.datasets.source import Source
from pipeline.images.sizes import Sides

FACTS = Facts(
    name="NABirds",
    url="https://dl.allaboutbirds.org/nabirds",
    classes=555,  # of the 1,011 in its hierarchy; the others are groups of these and have no images
    images={"train": 23_929, "test": 24_633},
    license="non-commercial research and educational use, under the Cornell Lab of Ornithology's terms",
    citation="Van Horn et al.: Building a bird recognition app and large scale dataset with citizen "
    "scientists, CVPR 2015.",
)

register("nabirds", __name__, facts=FACTS)


def load(dataset: Dataset, sides: Sides, facts: Facts = FACTS) -> Source:
    """nabirds.tar.gz, or what it holds, in `dataset.root`. A class is called like 0817.Oak Titmouse.

    Raises:
        UserError: it is not there, or not whole.
    """
    folder = find(
        Path(dataset.root),
        facts.described,
        folder="nabirds",
        archives=["nabirds.tar.gz", "nabirds.tgz"],
        marker="images.txt",
    )
    photos, classes = read_lists(folder, lambda number, name: f"{number.zfill(4)}.{name}")
    return official_source(dataset, sides, facts, photos, classes)
