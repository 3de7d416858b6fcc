"""What images add to metrics, against scikit-learn's own under a little more weight of one image."""

import numpy as np
import pytest
from sklearn import metrics

from pipeline.report.contributions import contributions
from stochca.config.selection import SELECTIONS, Selection
from stochca.evaluation import measure

STEP = 1e-5


def drawn(classes: int, images: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, most of them of the first class, predictions and probabilities, some of them equal."""
    generator = np.random.default_rng(seed)
    labels = np.minimum(generator.geometric(0.5, images) - 1, classes - 1)
    logits = generator.normal(size=(images, classes)).round(1) + 1.5 * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, probabilities.argmax(axis=1), probabilities


def weighted(
    selection: Selection, labels: np.ndarray, predictions: np.ndarray, p: np.ndarray, w: np.ndarray
) -> float:
    """The metric with a weight for each image, from scikit-learn."""
    match selection:
        case "accuracy":
            return float(metrics.accuracy_score(labels, predictions, sample_weight=w))
        case "balanced_accuracy":
            return float(metrics.balanced_accuracy_score(labels, predictions, sample_weight=w))
        case "macro_f1":
            return float(metrics.f1_score(labels, predictions, average="macro", sample_weight=w))
        case "log_loss":
            return float(metrics.log_loss(labels, p, sample_weight=w))
    if p.shape[1] == 2:
        return float(metrics.roc_auc_score(labels, p[:, 1], sample_weight=w))
    areas = [metrics.roc_auc_score(labels == c, p[:, c], sample_weight=w) for c in range(p.shape[1])]
    return float(np.mean(areas))


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("classes", [2, 4])
def test_their_mean_is_the_metric_and_each_is_its_derivative(selection: Selection, classes: int) -> None:
    labels, predictions, probabilities = drawn(classes)
    found = contributions(selection, labels, predictions, probabilities)
    value = measure(selection, labels, probabilities)
    assert found.mean() == pytest.approx(value)
    for image in range(0, len(labels), 7):
        one = np.eye(len(labels))[image]
        more, less = (
            weighted(selection, labels, predictions, probabilities, (1 - step) / len(labels) + step * one)
            for step in (STEP, -STEP)
        )
        assert found[image] - value == pytest.approx((more - less) / (2 * STEP), abs=1e-4)


@pytest.mark.parametrize("selection", SELECTIONS)
def test_they_spread_as_the_metric_does_over_other_images(selection: Selection) -> None:
    """Beside metrics of resampled images."""
    labels, predictions, probabilities = drawn(3, images=400)
    found = contributions(selection, labels, predictions, probabilities)
    generator = np.random.default_rng(1)
    resampled = []
    for _ in range(150):
        rows = generator.integers(0, len(labels), len(labels))
        resampled.append(measure(selection, labels[rows], probabilities[rows]))
    assert found.std(ddof=1) / len(labels) ** 0.5 == pytest.approx(np.std(resampled), rel=0.2)


@pytest.mark.parametrize("selection", SELECTIONS)
def test_classes_that_do_not_occur_are_left_out(selection: Selection) -> None:
    labels, predictions, probabilities = drawn(3)
    wider = np.pad(probabilities, ((0, 0), (0, 2)))
    found = contributions(selection, labels, predictions, wider)
    assert found == pytest.approx(contributions(selection, labels, predictions, probabilities))
