"""Averages over targets of made-up runs, and what is said of them."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.config.params import Params
from pipeline.report.comparison import Standing, average_over_targets, compare_runs
from pipeline.report.comparison_json import average_record
from pipeline.report.intervals import Difference, Spread
from pipeline.report.results import read_runs
from pipeline.report.terms import terms_of
from stochca.config.selection import SELECTIONS
from tests.pipeline.synthetic_runs import SKILL, write_inputs

TARGETS = ("art", "photo", "sketch")
TRIALS = (0, 1, 2)
DOMAINS = {"name": "leave_one_domain_out", "targets": list(TARGETS)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("averages")


@pytest.fixture(scope="module")
def params(root: Path) -> Params:
    return write_inputs(root, seeds=TRIALS, protocol=DOMAINS)


@pytest.fixture(scope="module")
def averages(root: Path, params: Params) -> list[Standing]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        return average_over_targets(params, read_runs(params.protocol))


def accuracies(root: Path, method: str) -> np.ndarray:
    """Test accuracy by trial and target, from the files of the predictions."""

    def accuracy(target: str, trial: int) -> float:
        path = root / "results" / f"{method}-{target}-{trial}" / "predictions.parquet"
        table = pd.read_parquet(path)
        return float((table["label"] == table["prediction"]).mean())

    return np.array([[accuracy(target, trial) for target in TARGETS] for trial in TRIALS])


def test_of_each_trial_the_mean_over_targets_then_the_spread_over_trials(
    root: Path, averages: list[Standing]
) -> None:
    assert sorted(each.method for each in averages) == sorted(SKILL)
    for each in averages:
        trials = accuracies(root, each.method).mean(axis=1)
        assert each.value == pytest.approx(trials.mean())
        assert each.metrics["test_accuracy"].standard_error == pytest.approx(trials.std(ddof=1) / 3**0.5)
        gains = (accuracies(root, each.method) - accuracies(root, "finetune")).mean(axis=1)
        assert each.gains == pytest.approx(gains.tolist())
        assert each.gain.standard_error == pytest.approx(gains.std(ddof=1) / 3**0.5)
        assert each.difference.mean == pytest.approx(gains.mean())
        assert each.difference.low <= each.difference.mean <= each.difference.high


def test_the_images_of_all_targets_are_told(averages: list[Standing]) -> None:
    """180 images of 60 each, once and not per trial; those of the second target in pairs."""
    best = averages[0]
    assert "groups" not in best.caveat
    in_pairs = [f"pair {number // 2}" for number in range(60)]
    runs = [
        dataclasses.replace(run, predictions=run.predictions.assign(group=in_pairs))
        if run.target == TARGETS[1]
        else run
        for run in best.runs
    ]
    caveat = dataclasses.replace(best, runs=runs).caveat
    assert caveat.endswith("; the 180 test images are of 150 groups, each of which counts as one")


def test_only_the_weights_chosen_on_the_sources_rank(averages: list[Standing], params: Params) -> None:
    means = [each.value for each in averages]
    assert means == sorted(means, reverse=True)
    assert [each.rank for each in averages] == list(range(1, len(SKILL) + 1))
    oracle = [each.metrics["test_accuracy_oracle"].mean for each in averages]
    assert all(best >= chosen for best, chosen in zip(oracle, means, strict=True))


def test_the_oracle_and_the_last_step_never_decide(
    root: Path, params: Params, averages: list[Standing], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same runs with other oracles and last steps come in the same order, with the same verdicts."""
    runs = []
    monkeypatch.chdir(root)
    for run in read_runs(params.protocol):
        other = 1.0 if run.method == "linear_probe" else 0.0
        metrics = {**run.metrics, "test_accuracy_oracle": other, "test_accuracy_last": other}
        runs.append(dataclasses.replace(run, metrics=metrics))
    changed = average_over_targets(params, runs)
    assert [(each.method, each.verdict) for each in changed] == [(e.method, e.verdict) for e in averages]


def test_test_images_that_targets_share_are_drawn_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice the same runs are no more evidence than once; with images of their own they would be."""
    monkeypatch.chdir(tmp_path)
    protocol = {"name": "sampling_ratios", "targets": ["50", "100"]}
    params = write_inputs(tmp_path, protocol=protocol)
    runs = read_runs(params.protocol)
    half = {row.method: row for row in compare_runs(params, runs) if row.target == "50"}
    twice = [dataclasses.replace(half[run.method].runs[0], target=run.target) for run in runs]
    for each in average_over_targets(params, twice):
        once = half[each.method].difference
        assert (each.test_images, each.test_groups) == (60, 60)
        assert (each.difference.low, each.difference.high) == (once.low, once.high)
    apart = []
    for run in twice:
        table = run.predictions.assign(id=run.target + run.predictions["id"])
        apart.append(dataclasses.replace(run, predictions=table))
    for each in average_over_targets(params, apart):
        once = half[each.method].difference
        if not each.is_reference:
            assert each.difference.high - each.difference.low < 0.9 * (once.high - once.low)


def test_one_target_has_no_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    params = write_inputs(tmp_path, test_images=20)
    assert average_over_targets(params, read_runs(params.protocol)) == []


def average(method: str, gains: list[float], low: float, high: float) -> Standing:
    run: Any = SimpleNamespace(predictions=pd.DataFrame({"group": ["a", "b", "a"]}))
    return Standing(
        method=method,
        targets=["a", "b", "c", "d"],
        metric=SELECTIONS["accuracy"],
        rank=1,
        reference="finetune",
        difference=Difference(sum(gains) / len(gains), low, high, shown=low > 0 or high < 0),
        behind_best=Difference(0, 0, 0),
        interval=(0.6, 0.8),
        confidence=0.95,
        metrics={"test_accuracy": Spread.of([0.7 + gain for gain in gains])},
        gains=gains,
        runs=[run],
    )


REFERENCE = average("finetune", [0.0, 0.0, 0.0], 0, 0)
TERMS = terms_of("leave_one_domain_out", "accuracy")


@pytest.mark.parametrize(
    ("gains", "low", "high", "verdict"),
    [
        ([0.02, 0.01, 0.03], 0.01, 0.03, "better than finetune"),
        ([-0.02, -0.01, -0.03], -0.03, -0.01, "worse than finetune"),
        ([0.05, 0.04, -0.01], -0.01, 0.05, "no difference shown"),
    ],
)
def test_a_verdict_is_that_of_the_difference(
    gains: list[float], low: float, high: float, verdict: str
) -> None:
    assert average("a", gains, low, high).verdict == verdict


def test_verdicts_allow_for_the_number_of_methods(
    root: Path, params: Params, averages: list[Standing]
) -> None:
    """The reference is not counted, and each is no surer than alone."""
    others = [each.difference for each in averages if not each.is_reference]
    smallest = min(others, key=lambda each: each.p_value)
    assert smallest.adjusted == pytest.approx(min(1, 5 * smallest.p_value))
    for each in others:
        assert each.p_value <= each.adjusted <= 5 * each.p_value
        assert each.shown == (each.adjusted <= 0.05)
    best = averages[0]
    assert not best.behind_best.shown
    assert all(each.behind_best.mean <= 0 for each in averages)


def test_the_intervals_on_average_hold_their_means(averages: list[Standing]) -> None:
    for each in averages:
        assert each.interval[0] < each.value < each.interval[1]
        if not each.is_reference:
            assert each.difference.low < each.difference.mean < each.difference.high


def test_the_records_are_json(averages: list[Standing]) -> None:
    records = json.loads(json.dumps([average_record(each) for each in averages]))
    assert records[0]["trials"] == 3
    assert records[0]["targets"] == list(TARGETS)
    assert records[0]["test_accuracy_mean"] == averages[0].value
