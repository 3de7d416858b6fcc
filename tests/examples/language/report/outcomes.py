"""Runs that were never run: answers whose surprises are known."""

from typing import Any

import numpy as np

from examples.language.settings import Compare

SETTINGS = Compare(
    methods=["finetune", "lora"], seeds=[0, 1, 2], reference="finetune", confidence=0.95, answers=60,
    generated=30, new_tokens=8, batch_size=8,
)  # fmt: skip
ANSWERS = 60
LEVELS = {"untuned": 4.0, "finetune": 2.0, "lora": 1.9}  # log loss per token


def outcome(random: np.random.Generator, per_token: float) -> dict[str, Any]:
    """Surprises that go with the length, a hardness of the answer, and noise of the run."""
    hard = np.random.default_rng(7).normal(0, 0.3, ANSWERS)
    answers = []
    for number in range(ANSWERS):
        tokens = 3 + number % 9
        surprise = tokens * (per_token + hard[number]) + random.normal(0, 0.05)
        written = {"written": "<b>x</b>", "rouge_l": 0.5, "exact": number % 2 == 0} if number < 30 else {}
        answers.append(
            {
                **{"id": str(number), "group": str(number), "question": f"<i>{number}</i>", "answer": "a"},
                **{"tokens": tokens, "surprise": surprise},
                **{"written": None, "rouge_l": None, "exact": None, **written},
            }
        )
    numbers = {"train_seconds": 2.0, "peak_memory_mb": 900.0, "trainable_parameters": 12}
    told = {"device": "a machine", "precision": "fp32", "losses": [3.0, 2.0, 1.0]}
    return {"numbers": numbers, "answers": answers, **told}


def make_outcomes(levels: dict[str, float] = LEVELS) -> dict[str, list[dict[str, Any]]]:
    random = np.random.default_rng(0)
    return {name: [outcome(random, level) for _ in SETTINGS.seeds] for name, level in levels.items()}


def in_groups(outcomes: dict[str, list[dict[str, Any]]], size: int) -> None:
    """Let every `size` answers, one after the other, begin with the same question."""
    for each in (each for own in outcomes.values() for each in own):
        for number, answer in enumerate(each["answers"]):
            answer["group"] = str(number // size)
