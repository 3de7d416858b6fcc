from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from stochca.errors import UserError
from stochca.phases.linear_head import features, fit_head, fit_logistic_regression
from tests.stochca.tiny import PREPROCESSING, ColouredSquares, tiny_vit

CPU: dict[str, Any] = {"device": torch.device("cpu"), "precision": "fp32"}


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


def test_fitted_head_sees_raw_features_and_chooses_on_validation() -> None:
    """The standardisation is folded into the head: scikit-learn on standardised features agrees."""
    model, train, validation = tiny_vit(), ColouredSquares(60), ColouredSquares(40, seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    strengths = (0.001, 0.1, 10.0)
    note = fit_head(model, train, validation, PREPROCESSING, strengths=strengths, **CPU)
    rows, labels = (x.numpy() for x in features(model, train, PREPROCESSING, **CPU))
    held_out, held_labels = (x.numpy() for x in features(model, validation, PREPROCESSING, **CPU))
    mean, std = rows.mean(0), rows.std(0)
    references = {
        C: LogisticRegression(C=C, max_iter=5000, tol=1e-8).fit((rows - mean) / std, labels)
        for C in strengths
    }
    scores = {C: reference.score((held_out - mean) / std, held_labels) for C, reference in references.items()}
    best = references[max(scores, key=lambda C: scores[C])]
    with torch.no_grad():
        found = torch.softmax(model.head(torch.from_numpy(held_out)), dim=1)
    expected = torch.from_numpy(best.predict_proba((held_out - mean) / std)).float()
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
    assert f"{max(scores.values()):.3f}" in note
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"head.weight", "head.bias"}


def test_refitting_uses_every_image_with_the_strength_that_was_chosen() -> None:
    model, train, validation = tiny_vit(), ColouredSquares(60), ColouredSquares(40, seed=1)
    fit_head(model, train, validation, PREPROCESSING, strengths=(0.1,), refit=True, **CPU)
    (rows, labels), (held_out, held_labels) = (
        [x.numpy() for x in features(model, images, PREPROCESSING, **CPU)] for images in (train, validation)
    )
    mean, std = rows.mean(0), rows.std(0)
    everything = np.concatenate([rows, held_out])
    reference = LogisticRegression(C=0.1, max_iter=5000, tol=1e-8).fit(
        (everything - mean) / std, np.concatenate([labels, held_labels])
    )
    with torch.no_grad():
        found = torch.softmax(model.head(torch.from_numpy(everything)), dim=1)
    expected = torch.from_numpy(reference.predict_proba((everything - mean) / std)).float()
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


def test_features_are_what_the_head_sees() -> None:
    model, images = tiny_vit(global_pool="avg"), ColouredSquares(5)
    rows, labels = features(model, images, PREPROCESSING, **CPU)
    pixels = torch.stack([PREPROCESSING.evaluation()(images[i][0]) for i in range(5)])
    torch.testing.assert_close(model.head(rows), model.eval()(pixels))
    assert labels.tolist() == images.labels


def test_a_head_that_is_not_linear_is_refused() -> None:
    model = tiny_vit()
    model.head = nn.Sequential(nn.Linear(16, 3))
    with pytest.raises(UserError, match="need a linear head, found Sequential"):
        fit_head(model, ColouredSquares(6), ColouredSquares(6), PREPROCESSING, strengths=(1.0,), **CPU)


def test_one_training_image_is_enough_for_a_head() -> None:
    model = tiny_vit()
    fit_head(model, ColouredSquares(1), ColouredSquares(4, seed=1), PREPROCESSING, strengths=(1.0,), **CPU)
    assert model.head.weight.isfinite().all()
