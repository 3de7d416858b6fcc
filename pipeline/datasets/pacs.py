"""PACS: 9,991 images of 7 classes as art paintings, cartoons, photographs and sketches."""

from pipeline.config.datasets import Facts, register
from pipeline.datasets.domains import domain_benchmark

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
load = domain_benchmark(FACTS, folders=FOLDERS, archives=("PACS.zip", "kfold.zip"))
