"""Logistic regression on frozen features against scikit-learn."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from stochca.data.examples import Examples
from stochca.phases.linear_head import features, fit_logistic_regression
from tests.stochca.tiny import PREPROCESSING, ColouredSquares, tiny_vit


@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_equals_scikit_learn(C: float) -> None:
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (60,), generator=random)
    inputs = torch.randn(60, 4, generator=random) + labels[:, None] * 0.5
    weight, bias = fit_logistic_regression(inputs, labels, 3, C)
    reference = LogisticRegression(C=C, max_iter=5000, tol=1e-8).fit(inputs.numpy(), labels.numpy())
    found = torch.softmax(inputs @ weight.T + bias, dim=1)
    expected = torch.from_numpy(reference.predict_proba(inputs.numpy())).float()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_features_are_what_the_head_sees() -> None:
    model, images = tiny_vit(global_pool="avg"), ColouredSquares(5)
    examples = Examples(images, images, PREPROCESSING, torch.device("cpu"))
    rows, labels = features(model, images, examples)
    pixels = torch.stack([PREPROCESSING.evaluation()(images[i][0]) for i in range(5)])
    torch.testing.assert_close(model.head(rows), model.eval()(pixels))
    assert labels.tolist() == images.labels
