"""PACS: 9,991 images of 7 classes as art paintings, cartoons, photographs and sketches."""

from pipeline.config.params import Dataset
from pipeline.datasets.domains import class_folders, domain_folder, domain_source, find_root
from pipeline.datasets.official import Facts
from pipeline.datasets.source import Source, select_domains
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


def load(dataset: Dataset, sides: Sides, facts: Facts = FACTS) -> Source:
    """PACS.zip, or the folder that it holds, in `dataset.root`.

    Raises:
        UserError: it is not there, or not whole.
    """
    domains = select_domains(dataset.domains, list(facts.images))
    base = find_root(dataset, facts, folders=FOLDERS, archives=["PACS.zip", "kfold.zip"], marker=domains[0])
    folders = [
        found for domain in domains for found in class_folders(domain_folder(base, facts, domain), domain)
    ]
    return domain_source(dataset, sides, facts, domains, folders)
