"""Weights of classes: what they add up to, and the cross-entropy that they weigh, image by image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from stochca.data.class_weights import class_weights, cross_entropy
from stochca.errors import UserError

NAMES = ["cracked", "good", "soiled"]
LABELS = st.lists(st.integers(0, 2), min_size=3, max_size=40)


@settings(deadline=None, max_examples=50)
@given(LABELS)
def test_balanced_is_scikit_learns(labels: list[int]) -> None:
    found = class_weights("balanced", np.array(labels), NAMES)
    assert found is not None
    occurring = np.unique(labels)
    expected = compute_class_weight("balanced", classes=occurring, y=np.array(labels))
    assert [found[label] for label in occurring] == pytest.approx(expected)
    assert all(found[label] == 1 for label in {0, 1, 2} - set(labels))


@settings(deadline=None, max_examples=50)
@given(LABELS, st.lists(st.floats(0.01, 100), min_size=3, max_size=3))
def test_the_mean_over_the_training_images_is_one(labels: list[int], weights: list[float]) -> None:
    found = class_weights(dict(zip(NAMES, weights, strict=True)), np.array(labels), NAMES)
    assert found == class_weights(tuple(weights), np.array(labels), NAMES)
    assert found is not None
    assert np.mean([found[label] for label in labels]) == pytest.approx(1)
    first, other = labels[0], labels[-1]
    assert found[first] / found[other] == pytest.approx(weights[first] / weights[other])


def test_batches_that_show_classes_equally_often_count_them_so() -> None:
    found = class_weights({"cracked": 3}, np.array([0, 1, 1, 1]), NAMES, evenly=True)
    assert found == pytest.approx((1.5, 0.5, 0.5))  # what a table does not name counts 1; 3 and 1 have mean 2


def test_none_is_none_and_mistakes_are_named() -> None:
    labels = np.array([0, 1, 2])
    assert class_weights("none", labels, NAMES) is None
    with pytest.raises(UserError, match=r"'crack', which is no class of the images; .*cracked, good, soiled"):
        class_weights({"crack": 2.0}, labels, NAMES)
    with pytest.raises(UserError, match="2 weights for 3 classes"):
        class_weights((1.0, 2.0), labels, NAMES)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_labels_and_the_probabilities_that_they_stand_for_cost_the_same(smoothing: float) -> None:
    torch.manual_seed(0)
    logits, labels, weights = torch.randn(8, 3), torch.arange(8) % 3, torch.tensor([0.5, 1.0, 3.0])
    one_hot = torch.nn.functional.one_hot(labels, 3).float()
    targets = one_hot * (1 - smoothing) + smoothing / 3  # as timm's mixup smooths
    losses = [
        -sum(weights[c] * target[c] * row.log_softmax(0)[c] for c in range(3))
        for row, target in zip(logits, targets, strict=True)
    ]
    expected = torch.stack([torch.as_tensor(loss) for loss in losses]).mean()
    torch.testing.assert_close(cross_entropy(logits, labels, weights, smoothing), expected)
    torch.testing.assert_close(cross_entropy(logits, targets, weights), expected)
    halves = [
        cross_entropy(logits[half], labels[half], weights, smoothing) for half in (slice(4), slice(4, 8))
    ]
    torch.testing.assert_close(torch.stack(halves).mean(), expected)  # ranks and micro-batches


def test_without_weights_it_is_torchs() -> None:
    logits, labels = torch.randn(8, 3), torch.arange(8) % 3
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    assert cross_entropy(logits, labels, label_smoothing=0.1).equal(expected)
