"""Office-Home: 15,588 images of 65 everyday things as art, clip art, product pictures and photographs."""

from pipeline.config.datasets import Facts, register
from pipeline.datasets.domains import domain_benchmark

FACTS = Facts(
    name="Office-Home",
    url="http://hemanthdv.org/OfficeHome-Dataset/",
    classes=65,
    images={"Art": 2_427, "Clipart": 4_365, "Product": 4_439, "Real_World": 4_357},  # per domain
    license="for non-commercial research and education only",
    citation="Venkateswara, Eusebio, Chakraborty, Panchanathan: Deep Hashing Network for Unsupervised Domain "
    "Adaptation, CVPR 2017.",
)
FOLDERS = ("OfficeHomeDataset_10072016", "office_home", "OfficeHome")  # the archive's, DomainBed's, others'
ARCHIVES = ("OfficeHomeDataset_10072016.zip", "office_home.zip")
# A target is part of file names and arguments, which had better hold no space.
NAMES = {"Real_World": ("Real World", "Real_World", "RealWorld")}

register("office_home", __name__, facts=FACTS)
load = domain_benchmark(FACTS, folders=FOLDERS, archives=ARCHIVES, names=NAMES)
