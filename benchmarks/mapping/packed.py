"""Images and weights in two small files, so that a machine without the pipeline can train on them.

`weights.safetensors` has the pretrained weights in half precision, `images.npz` the images of every set as
one array, with the rows of validation, of test, and of each share of the training images.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from stochca._typing import TimmModule
from stochca.backbones.loading import adapt_weights
from stochca.data.preprocessing import Preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WEIGHTS, IMAGES = "weights.safetensors", "images.npz"
SHARES = (15, 30, 50, 100)  # percent of the training images, each a part of the next
SPLIT_SEED = 0
SPLITS = {
    "validation": 0.1,
    "test": 0.4,
    "split_seed": SPLIT_SEED,
}  # a large test split, for narrow intervals
SIZE = 56  # of the images, in pixels
# What the sets are in `params.yaml`.
SETS: dict[str, dict[str, Any]] = {
    "openmoji": {"name": "openmoji", "domains": ["color"]},
    "solar_cells": {"name": "solar_cells", "domains": None},
}


@dataclass(frozen=True)
class Part:
    """Some of the images of a set: `part[i]` is a picture and its class."""

    images: NDArray[np.uint8]  # (N, size, size), grey, or (N, size, size, 3)
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.images[index]).convert("RGB"), int(self.labels[index])


@dataclass(frozen=True)
class PackedSet:
    """The images of one set by part: validation, test, and train_15 to train_100."""

    parts: dict[str, Part]

    @classmethod
    def of(cls, folder: Path, name: str) -> "PackedSet":
        with np.load(folder / IMAGES) as arrays:
            images, labels = arrays[f"{name}/images"], arrays[f"{name}/labels"]
            rows = {
                key.removeprefix(f"{name}/rows/"): arrays[key]
                for key in arrays
                if key.startswith(f"{name}/rows/")
            }
        return cls({part: Part(images[found], labels[found]) for part, found in rows.items()})

    @property
    def num_classes(self) -> int:
        return 1 + max(int(part.labels.max()) for part in self.parts.values())

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(self.parts["test"].images.shape[1], MEAN, STD)

    def model(self, folder: Path, seed: int) -> TimmModule:
        """The pretrained model at the size of the images, with a fresh head that `seed` alone decides."""
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - no mapping
            architecture = file.metadata()["architecture"]
        model = adapt_weights(weights, architecture, image_size=self.preprocessing.image_size)
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            model.reset_classifier(self.num_classes)
        return model


def pack(folder: Path) -> None:
    """Write both files; the pipeline fetches, prepares and splits what goes into them."""
    from pipeline.config.params import load_params
    from pipeline.weights.sources import fetch_weights

    folder.mkdir(parents=True, exist_ok=True)
    backbone = load_params(Path("params.yaml")).backbone
    write_weights(folder, backbone.name, fetch_weights(backbone).state_dict)
    write_images(folder, {name: _packed_set(dataset) for name, dataset in SETS.items()})


def write_weights(folder: Path, architecture: str, weights: dict[str, Tensor]) -> None:
    halved = {name: tensor.half() for name, tensor in weights.items()}
    save_file(halved, folder / WEIGHTS, metadata={"architecture": architecture})


def write_images(folder: Path, sets: dict[str, dict[str, NDArray[Any]]]) -> None:
    """Of every set `images`, `labels`, and `rows/PART` for each part."""
    arrays = {f"{name}/{key}": array for name, found in sets.items() for key, array in found.items()}
    np.savez_compressed(folder / IMAGES, allow_pickle=False, **arrays)


def _packed_set(dataset: dict[str, Any]) -> dict[str, NDArray[Any]]:
    from pipeline.config.params import load_params
    from pipeline.images.prepared import load_prepared
    from pipeline.images.sizes import Sides
    from pipeline.images.splits import keep_fraction
    from pipeline.prepare import prepare

    section = load_params(Path("params.yaml")).dataset
    section = type(section).model_validate({**section.model_dump(), **dataset, **SPLITS})
    resize = Preprocessing(SIZE, (0, 0, 0), (1, 1, 1)).evaluation().transforms[:2]  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as temporary:
        prepare(section, Sides.of(SIZE, None), Path(temporary, "prepared"))
        prepared = load_prepared(Path(temporary, "prepared"))
        found = prepared.select(range(len(prepared.table)))
        pictures = []
        for index in range(len(found)):
            picture, _ = found[index]
            for step in resize:
                picture = step(picture)
            pictures.append(np.asarray(picture))
    images = np.stack(pictures)
    if (images == images[..., :1]).all():
        images = images[..., 0]
    splits = np.array(prepared.splits)
    rows = {"validation": np.flatnonzero(splits == "val"), "test": np.flatnonzero(splits == "test")}
    pool = np.flatnonzero(splits == "train")
    items, trained = prepared.items([int(row) for row in pool]), ["train"] * len(pool)
    for share in SHARES:
        kept = keep_fraction(items, trained, ("train",), share / 100, SPLIT_SEED)
        rows[f"train_{share}"] = pool[np.array(kept)]
    return {
        "images": images,
        "labels": np.array(prepared.labels),
        **{f"rows/{part}": found for part, found in rows.items()},
    }
