"""The datasets by name. To add one: a module with `load(dataset, sides)`, and its name here.

`register` does the same from a project's own code, see docs/extending.md.
"""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config.params import Dataset
    from pipeline.datasets.source import Source
    from pipeline.images.sizes import Sides

# dataset.name -> the module that loads it, imported when it is used
MODULES: dict[str, str] = {
    "openmoji": "pipeline.datasets.openmoji",
    "image_folder": "pipeline.datasets.image_folder",
    "cub_200_2011": "pipeline.datasets.cub_200_2011",
    "stanford_cars": "pipeline.datasets.stanford_cars",
    "fgvc_aircraft": "pipeline.datasets.fgvc_aircraft",
    "stanford_dogs": "pipeline.datasets.stanford_dogs",
    "flowers_102": "pipeline.datasets.flowers_102",
    "nabirds": "pipeline.datasets.nabirds",
    "pacs": "pipeline.datasets.pacs",
    "vlcs": "pipeline.datasets.vlcs",
    "office_home": "pipeline.datasets.office_home",
    "terra_incognita": "pipeline.datasets.terra_incognita",
    "domain_net": "pipeline.datasets.domain_net",
    "torchvision": "pipeline.datasets.torchvision_dataset",
    "huggingface": "pipeline.datasets.huggingface",
    "arrays": "pipeline.datasets.arrays",
}


def loader(name: str) -> "Callable[[Dataset, Sides], Source]":
    """What reads the dataset `name`: loader(dataset params, sides in pixels)."""
    load: Callable[[Dataset, Sides], Source] = import_module(MODULES[name]).load
    return load


def register(name: str, module: str) -> None:
    """Let params.yaml say ``dataset: {name: NAME}``; `module` has the function `load`.

    Raises:
        ValueError: another module has the name.
    """
    if MODULES.setdefault(name, module) != module:
        raise ValueError(f"the dataset {name!r} is taken by {MODULES[name]}")
