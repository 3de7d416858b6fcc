"""Stanford Dogs: 20,580 photographs of 120 breeds, with the official split. They are ImageNet's."""

from pathlib import Path, PurePosixPath

from pipeline.config.datasets import Facts, register
from pipeline.config.params import Dataset
from pipeline.datasets.archives import find
from pipeline.datasets.official import Photo, items, official_source, read_matlab
from pipeline.datasets.source import Source
from pipeline.images.sizes import Sides
from stochca.errors import UserError

FACTS = Facts(
    name="Stanford Dogs",
    url="http://vision.stanford.edu/aditya86/ImageNetDogs/",
    classes=120,
    images={"train": 12_000, "test": 8_580},
    license="not stated by its authors; the images are ImageNet's",
    citation="Khosla, Jayadevaprakash, Yao, Fei-Fei: Novel Dataset for Fine-Grained Image Categorization, "
    "FGVC at CVPR 2011.",
)

register("stanford_dogs", __name__, facts=FACTS)


def load(dataset: Dataset, sides: Sides, facts: Facts = FACTS) -> Source:
    """images.tar and lists.tar, or what they hold, in `dataset.root`."""
    root = Path(dataset.root)
    images = find(root, facts.described, folder="Images", archives=["images.tar"])
    lists = find(root, facts.described, folder="lists", archives=["lists.tar"], marker="train_list.mat")
    photos, numbers = [], {}
    for split in ("train", "test"):
        path = lists / f"{split}_list.mat"
        names, labels = (items(column) for column in read_matlab(path, "file_list", "labels"))
        if len(names) != len(labels):
            raise UserError(f"{path} has {len(names)} images but {len(labels)} labels; download it again")
        for name, number in zip(names, labels, strict=True):
            breed = PurePosixPath(name).parent.name
            numbers[breed] = int(number)
            photos.append(Photo(name, images / name, breed, split))
    return official_source(dataset, sides, facts, photos, sorted(numbers, key=lambda breed: numbers[breed]))
