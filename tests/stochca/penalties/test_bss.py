"""BSS against eigenvalues."""

import numpy as np
import pytest

from stochca.config import Bss
from tests.stochca.penalties.terms import BATCH, term


def test_bss() -> None:
    _, student, _, added = term(Bss(weight=0.7, k=2))
    features = student.forward_head(student.forward_features(BATCH[0]), pre_logits=True)
    values = np.linalg.eigvalsh((features @ features.T).detach().double().numpy())  # squares, ascending
    assert float(added) == pytest.approx(0.7 * values[:2].sum(), rel=1e-3)
