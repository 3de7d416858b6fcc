"""MIRO against its formula, written out slowly."""

import numpy as np
import pytest

from stochca.config import Miro
from tests.stochca.penalties.terms import BATCH, outputs, term


def test_miro() -> None:
    before, student, loss, added = term(Miro(weight=0.2))
    layers = [0, 1, 2, 3]  # of three blocks the last of each quarter: 0, 1 and 2; and the embedding
    expected = 0.0
    for place in layers:
        now, then = (outputs(model, BATCH[0])[place] for model in (student, before))
        expected += 0.2 / 2 * float(((now - then) ** 2 / 0.1 + np.log(0.1)).mean())
    assert float(added) == pytest.approx(expected, rel=1e-4)
    assert sum(parameter.numel() for parameter in loss.parameters) == 4 * 16
    assert [scale for _, scale in loss.modules.values()] == [10.0]
