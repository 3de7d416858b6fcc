"""Images as arrays: root/train.npz and root/test.npz or root/ANY.npz, or CIFAR's binary version.

An .npz holds `images` (N x H x W x 3, uint8), `labels` (N, whole numbers) and, if you like, `class_names`.
"""

from pathlib import Path

from pipeline.config.datasets import register
from pipeline.config.params import Dataset
from pipeline.datasets.source import Source
from pipeline.images.sizes import Sides

register("arrays", __name__, sources=())


def load(dataset: Dataset, sides: Sides) -> Source:
    """The arrays in `dataset.root`, image by image, so that no more than a few are in memory.

    Raises:
        UserError: there are none, they are of another shape or type, or they are pickles.
    """
    from pipeline.datasets.arrays import cifar, npz

    version = cifar.version_in(Path(dataset.root).expanduser())
    return npz.load(dataset, sides) if version is None else cifar.load(dataset, sides, version)
