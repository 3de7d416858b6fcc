"""What is said of made-up rows and averages."""

from types import SimpleNamespace
from typing import Any

import pandas as pd

from pipeline.report.comparison import Standing
from pipeline.report.intervals import Difference, Spread
from pipeline.report.sentences import (
    details,
    duration,
    headline,
    listing,
    memory,
    percent,
    points,
)
from pipeline.report.terms import terms_of
from stochca.config.selection import SELECTIONS
from tests.pipeline.report.test_comparison import REFERENCE, average

TERMS = terms_of("leave_one_domain_out", "accuracy")
NBSP = "\u00a0"


def row(
    method: str,
    accuracy: float,
    low: float,
    high: float,
    behind: Difference = Difference(-0.1, -0.2, -0.05, shown=True),  # noqa: B008  it can't be changed
    shown: bool | None = None,
) -> Standing:
    """A row whose reference, finetune, has an accuracy of 0.7; a difference is shown if zero is outside."""
    seconds = 25.0 if method == "finetune" else 30.0
    run: Any = SimpleNamespace(predictions=pd.DataFrame({"group": range(1475)}))
    return Standing(
        method=method,
        targets=["all"],
        metric=SELECTIONS["accuracy"],
        rank=1,
        reference="finetune",
        difference=Difference(
            accuracy - 0.7, low, high, shown=(low > 0 or high < 0) if shown is None else shown
        ),
        behind_best=behind,
        interval=(accuracy - 0.02, accuracy + 0.02),
        confidence=0.95,
        metrics={"test_accuracy": Spread(accuracy, None, 1), "train_seconds": Spread(seconds, None, 1)},
        gains=[accuracy - 0.7],
        runs=[run],
    )


FINETUNE = row("finetune", 0.7, 0, 0)


def plain(text: str) -> str:
    return text.replace(NBSP, " ")


def test_headline_of_a_clear_winner() -> None:
    rows = [row("stochca", 0.741, 0.012, 0.07), FINETUNE]
    assert plain(headline(rows, TERMS)) == (
        "stochca is best: 74.1 % of 1,475 test images right, "
        "4.1 points above finetune (95 % interval +1.2 to +7.0)"
    )


def test_headline_where_nothing_is_shown() -> None:
    rows = [row("stochca", 0.706, -0.01, 0.02), FINETUNE]
    assert plain(headline(rows, TERMS)) == (
        "No method is shown to be better than finetune: stochca leads with 70.6 % of 1,475 test images "
        "right, 0.6 points above finetune (95 % interval −1.0 to +2.0)"
    )


def test_headline_where_only_the_number_of_methods_speaks_against_it() -> None:
    rows = [row("a", 0.73, 0.001, 0.06, shown=False), row("b", 0.71, -0.01, 0.03), FINETUNE]
    assert plain(headline(rows, TERMS)).endswith(
        "3.0 points above finetune (95 % interval +0.1 to +6.0; among 2 comparisons that may be chance)"
    )


def test_headline_when_the_reference_is_first() -> None:
    rows = [FINETUNE, row("stochca", 0.69, -0.03, 0.01)]
    assert plain(headline(rows, TERMS)) == (
        "No method is better than finetune: 70.0 % of 1,475 test images right; stochca comes next with 69.0 %"
    )


def test_headline_when_only_the_second_is_sure() -> None:
    rows = [row("a", 0.73, -0.01, 0.07), row("b", 0.72, 0.01, 0.03), FINETUNE]
    assert plain(headline(rows, TERMS)).endswith("; shown to be better: b")
    assert headline(rows, TERMS).startswith("a leads, but is not shown to be better than finetune: ")


def test_headline_of_one_method() -> None:
    assert (
        plain(headline([FINETUNE], TERMS)) == "finetune is the only method: 70.0 % of 1,475 test images right"
    )


def test_details() -> None:
    near = Difference(-0.01, -0.03, 0.01)
    rows = [row("a", 0.73, 0.01, 0.07), row("b", 0.72, 0.01, 0.03, behind=near), FINETUNE]
    told, cost, caveat, counted = map(plain, details(rows, TERMS))
    assert told == "Not told apart from a: b."
    assert cost == "a trained for 30 s, 1.2 times as long as finetune (25 s)."
    assert caveat == (
        "With one seed, the interval covers the test images of this training run; another seed may differ."
    )
    assert counted == "Better and worse allow for 2 comparisons at once (Holm's correction)."
    alone = details([rows[0], FINETUNE], TERMS)
    assert alone[0] == "Every other method is shown to be behind a."
    assert "Holm" not in " ".join(alone)


def test_numbers_in_words() -> None:
    assert plain(percent(0.7412)) == "74.1 %"
    assert [points(value) for value in (0.023, -0.023, 0.0, -0.0004)] == ["+2.3", "−2.3", "0.0", "0.0"]
    spoken = ["8.2 s", "47 s", "250 s", "12 min", "99 min", "3.4 h"]
    assert [plain(duration(value)) for value in (8.21, 47.2, 250, 720, 5950, 12240)] == spoken
    assert [plain(memory(value)) for value in (870.4, 12_345)] == ["870 MB", "12.3 GB"]
    assert listing(["a"]) == "a"
    assert listing(["a", "b", "c"]) == "a, b and c"


def test_what_is_said_of_a_winner() -> None:
    rows = [average("a", [0.02, 0.01, 0.03], 0.01, 0.03), REFERENCE]
    assert headline(rows, TERMS).replace("\u00a0", " ") == (
        "a is best: 72.0 % right on average over 4 domains, "
        "2.0 points above finetune (95 % interval +1.0 to +3.0)"
    )
    text = " ".join(details(rows, TERMS))
    assert "was +2.0 ± 0.6 points (mean ± standard error), above zero in 3 of 3." in text
    assert text.endswith(
        "With 3 seeds, the interval covers other seeds as well as other test images; "
        "the 3 test images are of 2 groups, each of which counts as one."
    )


def test_what_is_said_where_a_trial_disagrees() -> None:
    rows = [average("a", [0.05, 0.04, -0.01], -0.01, 0.05), REFERENCE]
    assert headline(rows, TERMS).startswith("No method is shown to be better than finetune: a leads")
    assert "above zero in 2 of 3." in " ".join(details(rows, TERMS))


def test_what_is_said_of_one_trial() -> None:
    one = " ".join(details([average("a", [0.02], 0.01, 0.03), REFERENCE], TERMS))
    assert "With one seed, the interval covers the test images of this training run" in one
    assert "standard error" not in one
