"""PACS: 9,991 images of 7 classes as art paintings, cartoons, photographs and sketches."""

from pipeline.config.datasets import Facts, register
from pipeline.config.params import Dataset
from pipeline.datasets.domains import domain_folders, domain_source
from pipeline.datasets.source import Source
from pipeline.images.sizes import Sides

FACTS = Facts(
    name="PACS",
    url="https://drive.google.com/uc?id=1JFr8f805nMUelQWWmfnJR3y4_SYoN5Pd",
    classes=7,
    images={"art_painting": 2_048, "cartoon": 2_344, "photo": 1_670, "sketch": 3_929},  # per domain
    license="not stated by its authors",
    citation="Li, Yang, Song, Hospedales: Deeper, Broader and Artier Domain Generalization, ICCV 2017.",
)
FOLDERS = ("kfold", "PACS", "pacs")  # the archive's, and what DomainBed and others rename it to

register("pacs", __name__, facts=FACTS)


def load(dataset: Dataset, sides: Sides, facts: Facts = FACTS) -> Source:
    """PACS.zip, or the folder that it holds, in `dataset.root`.

    Raises:
        UserError: it is not there, or not whole.
    """
    folders = domain_folders(dataset, facts, folders=FOLDERS, archives=("PACS.zip", "kfold.zip"))
    return domain_source(dataset, sides, facts, folders)
