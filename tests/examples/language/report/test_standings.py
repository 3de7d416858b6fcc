import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.language.paths import BACKBONE, CARD, DECODERS, MANIFEST, OUTCOME, PREPARED, PRETUNED
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


def test_answers_of_one_beginning_are_one_observation(outcomes: dict[str, list[dict[str, Any]]]) -> None:
    """Against a set in which every answer is there once; written were the first half of its answers."""
    drawn = np.random.default_rng(0).uniform(0, 1, (3, ANSWERS))
    for seed, values in enumerate(drawn):
        for value, answer in zip(values, outcomes["lora"][seed]["answers"], strict=True):
            if answer["rouge_l"] is not None:
                answer["rouge_l"] = value
    once = {row.method: row for row in rank(outcomes, SETTINGS)}["lora"]
    for each in (each for own in outcomes.values() for each in own):
        each["answers"] = [answer for answer in each["answers"] for _ in range(4)]
    often = {row.method: row for row in rank(outcomes, SETTINGS)}["lora"]
    for name in ("difference", "rouge_difference"):
        wanted, found = getattr(once, name), getattr(often, name)
        assert (found.low, found.mean, found.high) == pytest.approx((wanted.low, wanted.mean, wanted.high))


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
    for answer in outcomes["lora"][1]["answers"]:
        group = answer.pop("group")
    (tmp_path / "lora-1" / OUTCOME).write_text(json.dumps(outcomes["lora"][1]))
    with pytest.raises(
        UserError, match=r"lora-1/outcome\.json can't be read \(its answers don't say their g"
    ):
        read_outcomes(tmp_path, SETTINGS)
    for answer in outcomes["lora"][1]["answers"]:
        answer["group"] = group
    outcomes["lora"][1]["answers"].reverse()
    (tmp_path / "lora-1" / OUTCOME).write_text(json.dumps(outcomes["lora"][1]))
    with pytest.raises(UserError, match="lora answered other questions"):
        read_outcomes(tmp_path, SETTINGS)


def test_runs_of_other_settings_or_data(
    outcomes: dict[str, list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.model_validate(params())
    for file in (BACKBONE / CARD, PREPARED / MANIFEST, PRETUNED / DECODERS):
        file.parent.mkdir(parents=True)
    (BACKBONE / CARD).write_text('{"weights_sha256": "1"}')
    (PREPARED / MANIFEST).write_text('{"fingerprint": "2"}')
    for name in outcomes:
        data = {"backbone": "1", "examples": "2"} | ({} if name == "untuned" else {"decoders": None})
        told = json.dumps(settings.of_run(name) | data)
        for seed, each in enumerate(outcomes[name]):
            each.update(seed=seed, settings=json.loads(told))
    check_settings(outcomes, settings)
    outcomes["lora"][1]["settings"]["lr"] = 1.0
    with pytest.raises(UserError, match=r"lora-1 was run with lr 1\.0, but now it is 0\.001; run that"):
        check_settings(outcomes, settings)
    outcomes["lora"][1]["settings"]["lr"] = 0.001
    (PRETUNED / DECODERS).write_bytes(b"pre-tuned since then")
    now = hashlib.sha256(b"pre-tuned since then").hexdigest()
    with pytest.raises(UserError, match=f"finetune-0 was run with decoders None, but now it is {now}; run"):
        check_settings(outcomes, settings)
    (PRETUNED / DECODERS).unlink()
    for file, key, then in ((BACKBONE / CARD, "backbone", 1), (PREPARED / MANIFEST, "examples", 2)):
        text = file.read_text()
        file.write_text(text.replace(str(then), "9"))
        with pytest.raises(UserError, match=f"untuned was run with {key} {then}, but now it is 9; run that"):
            check_settings(outcomes, settings)
        file.write_text(text)
    check_settings(outcomes, settings)
    outcomes["untuned"][0]["settings"]["compare.new_tokens"] = 9
    with pytest.raises(UserError, match=r"untuned was run with compare\.new_tokens 9, but now it is 4; run"):
        check_settings(outcomes, settings)
