"""VLCS: 10,729 photographs of 5 classes from four older datasets."""

from pathlib import Path

from pipeline.config.datasets import Facts, register
from pipeline.datasets.domains import class_folders, domain_benchmark
from pipeline.datasets.source import ClassFolder

FACTS = Facts(
    name="VLCS",
    url="https://drive.google.com/uc?id=1skwblH1_okBwxWxmRsp9_qi15hyPpxg8",
    classes=5,
    images={"Caltech101": 1_415, "LabelMe": 2_656, "SUN09": 3_282, "VOC2007": 3_376},  # per domain
    license="not stated by its authors; the images are those of the four older datasets",
    citation="Fang, Xu, Rockmore: Unbiased Metric Learning, ICCV 2013.",
)
# DomainBed's names, and those of the original archive, whose classes are numbers.
NAMES = {
    "Caltech101": ("Caltech101", "CALTECH"),
    "LabelMe": ("LabelMe", "LABELME"),
    "SUN09": ("SUN09", "SUN"),
    "VOC2007": ("VOC2007", "PASCAL"),
}
CLASSES = {"0": "bird", "1": "car", "2": "chair", "3": "dog", "4": "person"}
PARTS = ("train", "crossval", "test")  # of the original, which repeats them all in the folder full
ARCHIVES = ("VLCS.tar.gz", "VLCS.tar", "VLCS.zip", "vlcs.zip")


def _classes_in(folder: Path, domain: str) -> list[ClassFolder]:
    """CLASS/* as in DomainBed, or full/NUMBER/*, or its parts where that is missing, as in the original."""
    parts = ["full"] if (folder / "full").is_dir() else [p for p in PARTS if (folder / p).is_dir()]
    if not parts:
        return class_folders(folder, domain)
    numbered = (found for part in parts for found in class_folders(folder / part, domain, f"{domain}/{part}"))
    named = [
        found._replace(class_name=CLASSES[found.class_name])
        for found in numbered
        if found.class_name in CLASSES
    ]
    return sorted(named, key=lambda found: found.class_name)


register("vlcs", __name__, facts=FACTS)
load = domain_benchmark(
    FACTS, folders=("VLCS", "vlcs"), archives=ARCHIVES, names=NAMES, classes_in=_classes_in
)
