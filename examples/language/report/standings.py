"""Where each method stands: its numbers over seeds, and its difference to the reference with an interval."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from pathlib import Path
from typing import Any

import numpy as np

from examples.language.paths import OUTCOME
from examples.language.settings import UNTUNED, Compare, Settings, digests_of_data
from pipeline.report.intervals import Difference, Spread, estimate, judge
from stochca.config.selection import SELECTIONS, Metric
from stochca.errors import UserError

Outcome = dict[str, Any]


@dataclass(frozen=True)
class Standing:
    """Ranked by the log loss per answer token on held-out answers; less is better."""

    method: str
    rank: int  # from 1
    reference: str
    difference: Difference  # by how much less its log loss is than the reference's
    rouge_difference: Difference  # by how much more its ROUGE-L is
    log_loss: Spread
    rouge_l: Spread
    exact: Spread
    numbers: dict[str, Spread]  # train_seconds, peak_memory_mb, ...; of the backbone as it is none
    confidence: float
    outcomes: list[Outcome]  # by seed

    metric: Metric = SELECTIONS["log_loss"]

    @property
    def is_reference(self) -> bool:
        return self.method == self.reference

    @property
    def perplexity(self) -> float:
        return exp(self.log_loss.mean)

    @property
    def verdict(self) -> str:
        return "the reference" if self.is_reference else self.difference.verdict_on(self.reference)

    def to_dict(self) -> dict[str, Any]:
        """Flat, for tables."""
        numbers = {name: spread.mean for name, spread in self.numbers.items()}
        own = {"rank": self.rank, "method": self.method, "seeds": self.log_loss.n}
        spreads = {"log_loss": self.log_loss, "rouge_l": self.rouge_l, "exact_match": self.exact}
        told = {
            name: value
            for key, spread in spreads.items()
            for name, value in ((key, spread.mean), (f"{key}_std", spread.std))
        }
        ends = {
            "difference": self.difference.mean,
            "difference_low": self.difference.low,
            "difference_high": self.difference.high,
            "verdict": self.verdict,
            "rouge_l_difference": self.rouge_difference.mean,
            "rouge_l_difference_low": self.rouge_difference.low,
            "rouge_l_difference_high": self.rouge_difference.high,
        }
        return {**own, **told, "perplexity": self.perplexity, **ends, **numbers}


def read_outcomes(folder: Path, settings: Compare) -> dict[str, list[Outcome]]:
    """What each method left behind, by seed; the backbone as it is stands for every seed.

    Raises:
        UserError: a run is missing or damaged, does not tell the groups of its answers, or answered other
            questions.
    """

    def read(name: str) -> Outcome:
        path = folder / name / OUTCOME
        try:
            outcome: Outcome = json.loads(path.read_text(encoding="utf-8"))
            if not all("group" in answer for answer in outcome["answers"]):
                raise ValueError("its answers don't say their group")
        except (OSError, ValueError) as error:
            raise UserError(f"{path} can't be read ({error}); run make language") from None
        return outcome

    outcomes = {UNTUNED: [read(UNTUNED)] * len(settings.seeds)}
    outcomes |= {name: [read(f"{name}-{seed}") for seed in settings.seeds] for name in settings.methods}
    asked = [answer["id"] for answer in outcomes[UNTUNED][0]["answers"]]
    for name, own in outcomes.items():
        if any([answer["id"] for answer in outcome["answers"]] != asked for outcome in own):
            raise UserError(f"{name} answered other questions than {UNTUNED} did; run make language")
    return outcomes


def check_settings(outcomes: dict[str, list[Outcome]], settings: Settings) -> None:
    """Raise `UserError` where a run was trained, or answered, otherwise than settings and data/ say now."""
    data, untuned_data = digests_of_data(decoders=True), digests_of_data(decoders=False)
    for name, own in outcomes.items():
        wanted = settings.of_run(name) | (untuned_data if name == UNTUNED else data)
        for outcome in own:
            for key in wanted | outcome["settings"]:
                then, now = (values.get(key) for values in (outcome["settings"], wanted))
                if then != now:
                    run = name if name == UNTUNED else f"{name}-{outcome['seed']}"
                    raise UserError(
                        f"{run} was run with {key} {then}, but now it is {now}; run that again, or make "
                        "language, which runs again what has changed"
                    )


def log_losses(outcomes: Sequence[Outcome]) -> np.ndarray:
    """What each held-out answer adds to the log loss per token, (seeds, answers).

    The log loss is the ratio of two sums, Σ surprise / Σ tokens. An answer adds that ratio plus what its own
    surprise is above what its length makes expect, so that means are the ratio itself, and their variance is
    the ratio's (the delta method).
    """
    tokens = np.array([answer["tokens"] for answer in outcomes[0]["answers"]], float)
    surprises = np.array([[answer["surprise"] for answer in each["answers"]] for each in outcomes])
    ratios = surprises.sum(axis=1, keepdims=True) / tokens.sum()
    return ratios + (surprises - ratios * tokens) / tokens.mean()


def written(outcomes: Sequence[Outcome], key: str) -> np.ndarray:
    """`rouge_l` or `exact` of the answers that the models wrote, (seeds, answers)."""
    return np.array(
        [[float(answer[key]) for answer in each["answers"] if answer[key] is not None] for each in outcomes]
    )


def rank(outcomes: dict[str, list[Outcome]], settings: Compare) -> list[Standing]:
    """Every method, best first."""
    losses = {name: log_losses(own) for name, own in outcomes.items()}
    rouges = {name: written(own, "rouge_l") for name, own in outcomes.items()}
    exact = {name: written(own, "exact") for name, own in outcomes.items()}
    answers = outcomes[UNTUNED][0]["answers"]
    groups = [answer["group"] for answer in answers]
    groups_of_written = [answer["group"] for answer in answers if answer["rouge_l"] is not None]
    reference = settings.reference
    rivals = [name for name in outcomes if name != reference]

    def differences(
        values: dict[str, np.ndarray], of: list[str], sign: int, limit: float
    ) -> dict[str, Difference]:
        gains = (sign * (values[name] - values[reference]) for name in rivals)
        found = judge([estimate([gain], groups=[of]) for gain in gains], settings.confidence, limit)
        return {reference: Difference(0.0, 0.0, 0.0), **dict(zip(rivals, found, strict=True))}

    def spread(values: np.ndarray) -> Spread:
        return Spread.of(values.mean(axis=1).tolist())

    less = differences(losses, groups, -1, SELECTIONS["log_loss"].extent)
    more = differences(rouges, groups_of_written, 1, 1.0)
    ranked = sorted(outcomes, key=lambda name: (losses[name].mean(), name != reference))
    return [
        Standing(
            method=name,
            rank=place,
            reference=reference,
            difference=less[name],
            rouge_difference=more[name],
            log_loss=spread(losses[name]),
            rouge_l=spread(rouges[name]),
            exact=spread(exact[name]),
            numbers={
                key: Spread.of([outcome["numbers"][key] for outcome in outcomes[name]])
                for key in outcomes[name][0]["numbers"]
            },
            confidence=settings.confidence,
            outcomes=outcomes[name],
        )
        for place, name in enumerate(ranked, start=1)
    ]
