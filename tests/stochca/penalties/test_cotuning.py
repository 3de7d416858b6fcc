"""Co-Tuning against scikit-learn and its formula."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from stochca.config import CoTuning
from stochca.penalties import cotuning
from stochca.penalties.cotuning import calibrated_temperature, learn_relationship, source_probabilities
from stochca.training.loss import Loss
from tests.stochca.penalties.terms import BATCH, EXAMPLES, SETTINGS, source_head, term
from tests.stochca.tiny import CLASSES, tiny_vit


def test_cotuning_learns_which_source_class_goes_with_which() -> None:
    model, head = tiny_vit().eval(), source_head()
    learned = learn_relationship(model, head, EXAMPLES)
    assert learned.table.shape == (CLASSES, 5)
    torch.testing.assert_close(learned.table.sum(dim=1), torch.ones(CLASSES))
    inputs, labels = (x.double().numpy() for x in source_probabilities(model, head, EXAMPLES, train=True))
    held, held_labels = (x.double().numpy() for x in source_probabilities(model, head, EXAMPLES, train=False))
    reference = LogisticRegression(C=learned.strength, max_iter=20000, tol=1e-12).fit(inputs, labels)
    logits = torch.from_numpy(reference.decision_function(held))
    temperature = calibrated_temperature(logits, torch.from_numpy(held_labels).long())
    grid = torch.linspace(-4.9, 4.9, 400).exp()
    losses = [float(functional.cross_entropy(logits / t, torch.from_numpy(held_labels).long())) for t in grid]
    best = float(functional.cross_entropy(logits / temperature, torch.from_numpy(held_labels).long()))
    assert best <= min(losses) + 1e-6
    given = torch.softmax(
        torch.from_numpy(reference.coef_.T + reference.intercept_) / learned.temperature, dim=1
    )
    joint = given.numpy().T * inputs.mean(axis=0)  # (target, source)
    np.testing.assert_allclose(learned.table.numpy(), joint / joint.sum(axis=1, keepdims=True), atol=2e-3)

    _, student, loss, added = term(CoTuning(weight=1.5))
    features = student.forward_head(student.forward_features(BATCH[0]), pre_logits=True)
    log_probabilities = torch.log_softmax(functional.linear(features, head.weight, head.bias), dim=1)
    expected = -1.5 * (learned.table[BATCH[1]] * log_probabilities).sum(dim=1).mean()
    assert float(added) == pytest.approx(float(expected), rel=1e-3)
    assert {tuple(parameter.shape) for parameter in loss.parameters} == {(5, 16), (5,)}


def test_cotuning_goes_where_the_student_is(monkeypatch: pytest.MonkeyPatch) -> None:
    relationship = learn_relationship(tiny_vit().eval(), source_head(), EXAMPLES)
    monkeypatch.setattr(cotuning, "learn_relationship", lambda *arguments: relationship)
    student = tiny_vit().to("meta")
    loss = Loss(student, SETTINGS, 0, (CoTuning(),), source_head(), EXAMPLES)
    (term,) = loss.terms
    assert isinstance(term, cotuning.CoTrainedSource)
    assert {tensor.device.type for tensor in (term.table, *loss.parameters)} == {"meta"}


def test_a_class_that_no_source_class_points_to_has_a_relationship(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, bias = torch.zeros(CLASSES, 5), torch.zeros(CLASSES)
    bias[0] = -1e4
    monkeypatch.setattr(cotuning, "best_regression", lambda *arguments: (1.0, None, weight, bias))
    monkeypatch.setattr(cotuning, "calibrated_temperature", lambda *arguments: 0.01)
    table = learn_relationship(tiny_vit().eval(), source_head(), EXAMPLES).table
    torch.testing.assert_close(table.sum(dim=1), torch.ones(CLASSES))
