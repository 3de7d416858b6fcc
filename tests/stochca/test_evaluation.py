"""Metrics against what they are defined by, image by image and pair by pair; and what can't be measured."""

import builtins
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stochca.config.selection import SELECTIONS, Selection
from stochca.errors import UserError
from stochca.evaluation import Scores, check_every_class, check_selection, measure, score

NAMES: tuple[Selection, ...] = get_args(Selection)


def slowly(selection: Selection, labels: list[int], logits: list[list[float]]) -> float:
    """From the definition, in loops."""
    exponentials = [np.exp(row - row.max()) for row in np.array(logits)]  # what is equal stays equal
    probabilities = [row / row.sum() for row in exponentials]
    predictions = [int(row.argmax()) for row in probabilities]
    pairs, classes = list(zip(labels, predictions, strict=True)), range(len(logits[0]))
    if selection == "accuracy":
        return float(np.mean([label == found for label, found in pairs]))
    if selection == "log_loss":
        both = zip(probabilities, labels, strict=True)
        return float(np.mean([-np.log(row[label]) for row, label in both]))
    recalls, scores, areas = [], [], []
    for one in classes:
        hits = sum(label == found == one for label, found in pairs)
        actual, predicted = labels.count(one), predictions.count(one)
        if actual:
            recalls.append(hits / actual)
        if actual + predicted:
            scores.append(2 * hits / (actual + predicted))
        own = [row[one] for row, label in zip(probabilities, labels, strict=True) if label == one]
        others = [row[one] for row, label in zip(probabilities, labels, strict=True) if label != one]
        wins = [(a > b) + 0.5 * (a == b) for a in own for b in others]
        areas.append(np.mean(wins) if wins else np.nan)
    return float(np.mean({"balanced_accuracy": recalls, "macro_f1": scores, "auroc": areas}[selection]))


@settings(deadline=None, max_examples=50)  # the first may wait for imports
@given(
    st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(-4, 4), min_size=4, max_size=4)), min_size=1),
    st.integers(2, 4),
)
def test_every_metric_is_what_its_definition_says(rows: list[tuple[int, list[int]]], classes: int) -> None:
    labels = [label % classes for label, _ in rows]
    logits = [[number + place / 8 for place, number in enumerate(row[:classes])] for _, row in rows]
    for name in NAMES:
        expected = slowly(name, labels, logits)
        if name == "auroc" and len(set(labels)) < classes:
            expected = float("nan")
        scores = score(torch.tensor(logits), torch.tensor(labels), name)
        assert scores.value == pytest.approx(expected, abs=1e-5, nan_ok=True)
        probabilities = torch.tensor(logits).softmax(dim=1).numpy()
        assert measure(name, np.array(labels), probabilities) == pytest.approx(
            expected, abs=1e-5, nan_ok=True
        )


def test_more_is_better_of_all_metrics_but_the_loss() -> None:
    assert set(NAMES) == set(SELECTIONS)
    for name in NAMES:
        good, bad = (0.2, 0.9) if name == "log_loss" else (0.9, 0.2)
        other = None if name in ("accuracy", "log_loss") else 0.0
        scores = [
            Scores(value, value, name, None if other is None else value)
            for value in (good, bad, float("nan"))
        ]
        assert max(scores, key=lambda one: one.merit) is scores[0]
        assert min(scores, key=lambda one: one.merit) is scores[2]  # a model that has diverged
        assert SELECTIONS[name].merit(SELECTIONS[name].worst) <= SELECTIONS[name].merit(bad)


def test_of_equal_accuracy_the_loss_decides() -> None:
    assert Scores(0.5, 0.75).merit > Scores(0.6, 0.75).merit
    assert Scores(0.6, 0.76).merit > Scores(0.5, 0.75).merit


def test_a_diverged_model_has_no_auroc() -> None:
    assert np.isnan(score(torch.full((4, 2), float("nan")), torch.tensor([0, 1, 0, 1]), "auroc").value)


def test_a_class_that_does_not_occur_is_named() -> None:
    check_every_class(np.array([0, 1, 1]), ["good", "cracked"], "validation images")
    with pytest.raises(UserError, match=r"auroc needs validation images of every class, .* none of cracked;"):
        check_every_class(np.array([0, 0]), ["good", "cracked"], "validation images")
    with pytest.raises(UserError, match=r"none of b, c, d, e, f and 2 more;"):
        check_every_class(np.array([0]), list("abcdefgh"), "test images")


def test_without_scikit_learn_the_metrics_that_need_it_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.split(".")[0] == "sklearn":
            raise ImportError(name)
        return found(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    check_selection("accuracy")
    check_selection("log_loss")
    assert score(torch.eye(2), torch.tensor([0, 1])).value == 1.0
    with pytest.raises(UserError, match="pip install scikit-learn"):
        check_selection("auroc")
