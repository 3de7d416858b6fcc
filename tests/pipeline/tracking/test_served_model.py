import numpy as np
import pytest

from pipeline.images import decoding
from pipeline.tracking.served_model import LONGEST, ImageClassifier


def test_thin_images_are_refused_before_they_are_resized() -> None:
    assert LONGEST == decoding.LONGEST  # what is served stands alone
    for shape in ((1, 1, 20_000, 3), (2, 301, 3, 3)):
        with pytest.raises(ValueError, match="more than 100 times as long as wide"):
            ImageClassifier().predict(None, np.zeros(shape, np.uint8))


def test_shares_of_one_are_refused_whatever_mlflow_makes_of_them() -> None:
    shares = np.random.default_rng(0).random((2, 32, 32, 3))
    for given in (shares, shares.round(), shares.astype(np.uint8)):
        with pytest.raises(ValueError, match="no pixel is above 1: give whole numbers from 0 to 255"):
            ImageClassifier().predict(None, given)
