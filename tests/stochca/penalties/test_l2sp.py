"""L2-SP against its formula, written out slowly."""

import pytest

from stochca.config import L2Sp
from tests.stochca.penalties.terms import term


def test_l2sp() -> None:
    before, student, loss, added = term(L2Sp(weight=0.3, head_weight=0.2))
    expected = 0.0
    for (name, now), then in zip(student.named_parameters(), before.parameters(), strict=True):
        if name.startswith("head"):
            expected += 0.2 / 2 * float((now**2).sum())
        else:
            expected += 0.3 / 2 * float(((now - then) ** 2).sum())
    assert float(added) == pytest.approx(expected, rel=1e-4)
    assert loss.replaces_weight_decay
