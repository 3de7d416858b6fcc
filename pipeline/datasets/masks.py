"""Masks that lie beside their images: x.png and x_mask.png in the folder of a class."""

import re
from collections import defaultdict
from collections.abc import Sequence

from pipeline.datasets.source import ClassFolder
from pipeline.images.image_files import printable
from stochca.errors import UserError

FEW = 0.1  # of all images; fewer may be named so by chance
_MASK = re.compile(r"(.+)(_(?:masks?|seg|segmentation|label|annotation|gt))", re.IGNORECASE)


def refuse_masks(described: str, folders: Sequence[ClassFolder]) -> None:
    """Raise `UserError` where many images are named as another of their folder with one ending behind it."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for folder in folders:
        named = {name.rpartition(".")[0]: name for name in folder.names}
        for stem, name in named.items():
            parts = _MASK.fullmatch(stem)
            if parts and (image := named.get(parts[1])):
                found[parts[2].lower()].append((f"{folder.place}/{printable(image)}", printable(name)))
    count = sum(len(folder.names) for folder in folders)
    for ending, pairs in found.items():
        if len(pairs) >= FEW * count:
            image, mask = pairs[0]
            raise UserError(
                f"{described} holds {image} and beside it {mask}, and so for {len(pairs):,} of {count:,} "
                f"files: what ends in {ending} are masks, and would be learned as images of the class; move "
                "them elsewhere, or name the images alone in a table (dataset.labels)"
            )
