"""Folders of small pictures, no two of them alike."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_pictures(
    folder: Path, number: int, *, side: int = 30, wide: int | None = None, grey: bool = False
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng([number, side, *folder.name.encode()])
    shape = (side, wide or side) if grey else (side, wide or side, 3)
    for place in range(number):
        Image.fromarray(draw.integers(0, 256, shape, np.uint8)).save(folder / f"{place}.png")
