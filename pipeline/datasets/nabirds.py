"""NABirds: 48,562 photographs of 555 kinds of North American birds, with the official split."""

from pipeline.config.datasets import Facts, register
from pipeline.datasets.cub_200_2011 import birds

FACTS = Facts(
    name="NABirds",
    url="https://dl.allaboutbirds.org/nabirds",
    classes=555,  # of the 1,011 in its hierarchy; the others are groups of these and have no images
    images={"train": 23_929, "test": 24_633},
    license="non-commercial research and educational use, under the Cornell Lab of Ornithology's terms",
    citation="Van Horn et al.: Building a bird recognition app and large scale dataset with citizen "
    "scientists, CVPR 2015.",
)


def _class_name(number: str, name: str) -> str:
    return f"{number.zfill(4)}.{name}"  # such as 0817.Oak Titmouse; some names come twice


register("nabirds", __name__, facts=FACTS)
load = birds(FACTS, "nabirds", ["nabirds.tar.gz", "nabirds.tgz"], _class_name)
