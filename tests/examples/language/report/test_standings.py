import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.language.paths import OUTCOME
from examples.language.report.standings import check_settings, log_losses, rank, read_outcomes
from examples.language.settings import Settings
from stochca.errors import UserError
from tests.examples.language.report.outcomes import ANSWERS, SETTINGS, make_outcomes
from tests.examples.language.workspace import params


@pytest.fixture
def outcomes() -> dict[str, list[dict[str, Any]]]:
    return make_outcomes()


def test_the_mean_is_the_log_loss_per_token(outcomes: dict[str, list[dict[str, Any]]]) -> None:
    for own in outcomes.values():
        values = log_losses(own)
        for each, seed in zip(own, values, strict=True):
            surprises, tokens = (
                sum(answer[key] for answer in each["answers"]) for key in ("surprise", "tokens")
            )
            assert seed.mean() == pytest.approx(surprises / tokens)


def test_the_variance_is_that_of_other_answers(outcomes: dict[str, list[dict[str, Any]]]) -> None:
    """Against the bootstrap, which draws answers anew."""
    (own,) = outcomes["finetune"][:1]
    pairs = np.array([(answer["surprise"], answer["tokens"]) for answer in own["answers"]])
    random = np.random.default_rng(1)
    drawn = pairs[random.integers(ANSWERS, size=(4000, ANSWERS))].sum(axis=1)
    error = (drawn[:, 0] / drawn[:, 1]).std()
    assert log_losses([own])[0].std(ddof=1) / np.sqrt(ANSWERS) == pytest.approx(error, rel=0.08)


def test_ranks_and_verdicts(outcomes: dict[str, list[dict[str, Any]]]) -> None:
    rows = {row.method: row for row in rank(outcomes, SETTINGS)}
    assert [row.rank for row in (rows["lora"], rows["finetune"], rows["untuned"])] == [1, 2, 3]
    assert rows["lora"].verdict == "better than finetune"
    assert rows["untuned"].verdict == "worse than finetune"
    assert rows["finetune"].verdict == "the reference"
    assert rows["lora"].difference.mean == pytest.approx(0.1, abs=0.02)
    assert rows["lora"].difference.low < rows["lora"].difference.mean < rows["lora"].difference.high
    assert rows["lora"].rouge_l.mean == rows["lora"].exact.mean == 0.5
    assert rows["lora"].to_dict()["perplexity"] == pytest.approx(np.exp(rows["lora"].log_loss.mean))


def test_runs_that_are_missing_or_answered_others(
    outcomes: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"untuned/outcome\.json can't be read"):
        read_outcomes(tmp_path, SETTINGS)
    for name, own in outcomes.items():
        for seed, each in enumerate(own):
            folder = tmp_path / (name if name == "untuned" else f"{name}-{seed}")
            folder.mkdir(exist_ok=True)
            (folder / OUTCOME).write_text(json.dumps(each))
    assert read_outcomes(tmp_path, SETTINGS)["lora"] == outcomes["lora"]
    outcomes["lora"][1]["answers"].reverse()
    (tmp_path / "lora-1" / OUTCOME).write_text(json.dumps(outcomes["lora"][1]))
    with pytest.raises(UserError, match="lora answered other questions"):
        read_outcomes(tmp_path, SETTINGS)


def test_runs_of_other_settings(outcomes: dict[str, list[dict[str, Any]]]) -> None:
    settings = Settings.model_validate(params())
    for name in SETTINGS.methods:
        told = json.dumps(settings.methods[name].trained_with(settings.training))
        for seed, each in enumerate(outcomes[name]):
            each.update(seed=seed, settings=json.loads(told))
    check_settings(outcomes, settings)
    outcomes["lora"][1]["settings"]["lr"] = 1.0
    with pytest.raises(UserError, match=r"lora-1 was trained with lr 1\.0, but now it is 0\.001; run make"):
        check_settings(outcomes, settings)
