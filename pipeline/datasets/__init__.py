"""The datasets by name. To add one: write a file with a loader beside this one, and name it here."""

from collections.abc import Callable

from pipeline.datasets import image_folder, openmoji
from pipeline.datasets.source import Sides, Source
from pipeline.params import Dataset

# dataset.name -> loader(dataset params, sides in pixels)
LOADERS: dict[str, Callable[[Dataset, Sides], Source]] = {
    "openmoji": openmoji.load,
    "image_folder": image_folder.load,
}
