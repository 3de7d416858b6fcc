"""The datasets by name. To add one: write a file with a loader beside this one, and name it here."""

from collections.abc import Callable

from pipeline.datasets import (
    arrays,
    cub_200_2011,
    domain_net,
    fgvc_aircraft,
    flowers_102,
    huggingface,
    image_folder,
    nabirds,
    office_home,
    openmoji,
    pacs,
    stanford_cars,
    stanford_dogs,
    terra_incognita,
    torchvision_dataset,
    vlcs,
)
from pipeline.datasets.source import Sides, Source
from pipeline.params import Dataset

# dataset.name -> loader(dataset params, sides in pixels)
LOADERS: dict[str, Callable[[Dataset, Sides], Source]] = {
    "openmoji": openmoji.load,
    "image_folder": image_folder.load,
    "cub_200_2011": cub_200_2011.load,
    "stanford_cars": stanford_cars.load,
    "fgvc_aircraft": fgvc_aircraft.load,
    "stanford_dogs": stanford_dogs.load,
    "flowers_102": flowers_102.load,
    "nabirds": nabirds.load,
    "pacs": pacs.load,
    "vlcs": vlcs.load,
    "office_home": office_home.load,
    "terra_incognita": terra_incognita.load,
    "domain_net": domain_net.load,
    "torchvision": torchvision_dataset.load,
    "huggingface": huggingface.load,
    "arrays": arrays.load,
}
