"""Metrics of predictions, by hand, and against a loop."""

import numpy as np
import pytest

from pipeline.training.metrics import calibration_error


def test_calibration_error_by_hand() -> None:
    # Bins of width 0.2, closed above. 0.6 twice in (0.4, 0.6]: half right, gap 0.1. 0.8 and 0.7 in
    # (0.6, 0.8]: both right, gap 0.25. 1.0 alone in the last: wrong, gap 1.
    confidence = np.array([0.6, 0.6, 0.8, 0.7, 1.0])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.array([0, 1, 0, 0, 1])
    expected = 2 / 5 * 0.1 + 2 / 5 * 0.25 + 1 / 5 * 1.0
    assert calibration_error(probabilities, labels, bins=5) == pytest.approx(expected)


def test_calibration_error_against_a_loop() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet([0.4] * 7, 500)
    labels = generator.integers(0, 7, 500)
    expected = 0.0
    for index in range(15):
        inside = [
            (p.max(), p.argmax() == label)
            for p, label in zip(probabilities, labels, strict=True)
            if index / 15 < p.max() <= (index + 1) / 15
        ]
        if inside:
            gap = np.mean([right for _, right in inside]) - np.mean([sure for sure, _ in inside])
            expected += len(inside) / 500 * abs(gap)
    assert calibration_error(probabilities, labels) == pytest.approx(expected)
    # A classifier that is right as often as it is sure has almost none.
    drawn = np.array([generator.choice(7, p=row) for row in probabilities])
    assert calibration_error(probabilities, drawn) < 0.08 < expected
