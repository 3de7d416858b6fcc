from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.images.image_files import ImageFiles
from stochca.errors import UserError


def test_grey_values_without_a_common_white_are_refused(tmp_path: Path) -> None:
    for name, white in (("a", 65535), ("b", 200), ("c", 4095)):
        Image.fromarray(np.full((8, 8), white, np.uint16)).save(tmp_path / f"{name}.png")
    images = ImageFiles(tmp_path, short_side=8, max_megapixels=1)
    assert [images[place][0].getpixel((0, 0)) for place in (0, 1)] == [(255, 255, 255), (200, 200, 200)]
    with pytest.raises(UserError, match=r"c.png holds whole numbers .* 4095 white.*; save all with 8 bits"):
        images[2]
