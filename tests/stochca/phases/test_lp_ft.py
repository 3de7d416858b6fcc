"""The head that is fitted first against scikit-learn."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.config import LpFt
from stochca.data.examples import Examples
from stochca.errors import UserError
from stochca.phases.linear_head import features
from stochca.phases.lp_ft import FittedHead
from tests.stochca.tiny import PREPROCESSING, ColouredSquares, tiny_vit


def examples_of(train: int, validation: int) -> Examples:
    images = ColouredSquares(train), ColouredSquares(validation, seed=1)
    return Examples(*images, PREPROCESSING, torch.device("cpu"))


def fit_head(model: TimmModule, examples: Examples, strengths: tuple[float, ...], refit: bool = False) -> str:
    return FittedHead(LpFt(C=strengths)).run(model, examples, None, refit=refit)


def test_fitted_head_sees_raw_features_and_chooses_on_validation() -> None:
    """The standardisation is folded into the head: scikit-learn on standardised features agrees."""
    model, examples = tiny_vit(), examples_of(60, 40)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    strengths = (0.001, 0.1, 10.0)
    note = fit_head(model, examples, strengths)
    rows, labels = (x.numpy() for x in features(model, examples.train, examples))
    held_out, held_labels = (x.numpy() for x in features(model, examples.validation, examples))
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
    model, examples = tiny_vit(), examples_of(60, 40)
    fit_head(model, examples, (0.1,), refit=True)
    (rows, labels), (held_out, held_labels) = (
        [x.numpy() for x in features(model, images, examples)]
        for images in (examples.train, examples.validation)
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


def test_the_regression_weighs_images_as_it_sees_them() -> None:
    """Each once; what batches show may weigh otherwise."""

    def head(of_batches: Tensor | None, of_images: Tensor | None) -> Tensor:
        model = tiny_vit()
        examples = dataclasses.replace(
            examples_of(30, 10), class_weights=of_batches, class_weights_of_images=of_images
        )
        fit_head(model, examples, (0.1,), refit=True)
        return model.head.weight

    one, other = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([3.0, 1.0, 1.0])
    assert head(other, one).equal(head(None, one))
    assert not head(None, one).equal(head(None, None))


def test_a_head_that_is_not_linear_is_refused() -> None:
    model = tiny_vit()
    model.head = nn.Sequential(nn.Linear(16, 3))
    with pytest.raises(UserError, match="need a linear head, found Sequential"):
        fit_head(model, examples_of(6, 6), (1.0,))


def test_one_training_image_is_enough_for_a_head() -> None:
    model = tiny_vit()
    fit_head(model, examples_of(1, 4), (1.0,))
    assert model.head.weight.isfinite().all()
