"""Office-Home: 15,588 images of 65 everyday things as art, clip art, product pictures and photographs."""

from pipeline.config.datasets import Facts, register
from pipeline.config.params import Dataset
from pipeline.datasets.domains import domain_folders, domain_source
from pipeline.datasets.source import Source
from pipeline.images.sizes import Sides

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


def load(dataset: Dataset, sides: Sides, facts: Facts = FACTS) -> Source:
    """OfficeHomeDataset_10072016.zip, or the folder that it holds, in `dataset.root`.

    Raises:
        UserError: it is not there, or not whole.
    """
    folders = domain_folders(dataset, facts, folders=FOLDERS, archives=ARCHIVES, names=NAMES)
    return domain_source(dataset, sides, facts, folders)
