from pathlib import Path

import pytest

from pipeline.datasets.masks import refuse_masks
from pipeline.datasets.source import ClassFolder
from stochca.errors import UserError


def refuse(**names: list[str]) -> None:
    refuse_masks("dataset.root raw", [ClassFolder(name, Path(name), name, of) for name, of in names.items()])


@pytest.mark.parametrize(
    "ending", ["_mask", "_Masks", "_seg", "_segmentation", "_label", "_annotation", "_GT"]
)
def test_a_tenth_of_all_files_is_no_chance(ending: str) -> None:
    images = [f"{number}.jpg" for number in range(18)]
    with pytest.raises(UserError, match=rf"a/3.jpg and beside it 3{ending}.png, and so for 2 of 20 files"):
        refuse(a=[*images[:9], f"3{ending}.png"], b=[*images[9:], f"12{ending}.png"])
    refuse(a=[*images, "more.jpg", f"3{ending}.png"])


def test_names_that_only_end_like_masks_are_those_of_images() -> None:
    refuse(a=["1_mask.png", "2_mask.png"], b=["1.png", "2.png"])  # not beside each other
    refuse(a=["x_label.png", "y.png"], b=["_mask.png", "1.png"])
