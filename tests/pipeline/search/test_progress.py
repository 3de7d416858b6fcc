"""What a search says of its trials, and what the folders of their runs hold for MLflow."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.search.progress import SearchProgress
from pipeline.search.records import Record, Rung
from pipeline.tracking.run_folder import CHILDREN, METRICS, RUN, RunFolder
from stochca.config.selection import SELECTIONS

STEPS, SEEDS = 8, (3, 5)
STARTED = Record("a", 2, {"prob": 0.25, "lr": 0.001})
REPORTED = dataclasses.replace(STARTED, rungs=[Rung(2, [0.5, 0.75])], node="here")
STOPPED = dataclasses.replace(REPORTED, stopped_early=True, finished_at=1.5)
FAILED = dataclasses.replace(STARTED, problem="its machine was lost", finished_at=1.5)


@pytest.fixture
def search(tmp_path: Path) -> RunFolder:
    return RunFolder.begin(tmp_path / "search", "stochca", "search")


def progress(search: RunFolder) -> SearchProgress:
    return SearchProgress(search, 4, STEPS, SEEDS, SELECTIONS["accuracy"])


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def trials(search: RunFolder) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """run.json and the numbers of every nested run."""
    found = []
    for file in sorted((search.folder / CHILDREN).glob(f"*/{RUN}")):
        metrics = file.parent / METRICS
        text = metrics.read_text() if metrics.exists() else ""
        found.append((json.loads(file.read_text()), [json.loads(line) for line in text.splitlines()]))
    return found


def test_each_report_is_a_line_and_a_step_once(search: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    told = progress(search)
    for record in (STARTED, REPORTED, REPORTED, STOPPED, STOPPED):
        told.tell([record])
    trial = "tune: trial 2 of 4, prob 0.25, lr 0.001: "
    assert lines(capsys) == [
        f"{trial}step 2 of 8, validation accuracy 0.625 ± 0.177 (2 seeds)",
        f"{trial}stopped early, after step 2",
    ]
    ((run, numbers),) = trials(search)
    assert (run["name"], run["status"]) == ("prob=0.25, lr=0.001", "FINISHED")
    assert run["params"] == {"prob": "0.25", "lr": "0.001", "seeds": "3,5", "node": "here"}
    assert run["tags"] == {"trial": "a", "stopped_early": "true"}
    (number,) = numbers
    assert number["step"] == 2
    assert number["values"] == {
        "validation_accuracy": 0.625,
        "validation_accuracy_seed_3": 0.5,
        "validation_accuracy_seed_5": 0.75,
        "validation_accuracy_std": pytest.approx(0.1768, abs=1e-4),
    }


def test_a_single_seed_has_no_spread(search: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    told = SearchProgress(search, 4, STEPS, [3], SELECTIONS["accuracy"])
    told.tell([dataclasses.replace(REPORTED, rungs=[Rung(2, [0.5])])])
    assert lines(capsys)[0].endswith("validation accuracy 0.500 (1 seed)")
    ((_, numbers),) = trials(search)
    assert numbers[0]["values"] == {"validation_accuracy": 0.5, "validation_accuracy_seed_3": 0.5}


def test_a_failed_trial_says_why(search: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    progress(search).tell([FAILED])
    assert lines(capsys)[0].endswith(": failed: its machine was lost")
    ((run, _),) = trials(search)
    assert (run["status"], run["tags"]["problem"]) == ("FAILED", "its machine was lost")


def test_what_an_interrupted_search_has_told_is_not_told_again(
    search: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    progress(search).tell([STOPPED])
    before, _ = trials(search), lines(capsys)
    again = progress(search)
    again.tell([STOPPED], aloud=False)
    again.tell([STOPPED])
    assert trials(search) == before  # when it ended, too
    assert lines(capsys) == []


def test_what_it_did_not_come_to_tell_reaches_mlflow(search: RunFolder) -> None:
    progress(search).tell([STARTED])
    progress(search).tell([STOPPED], aloud=False)
    ((run, numbers),) = trials(search)
    assert (run["status"], len(numbers)) == ("FINISHED", 1)


def test_a_trial_that_failed_is_under_way_again(search: RunFolder) -> None:
    told = progress(search)
    told.tell([FAILED])
    told.tell([STARTED])
    assert trials(search)[0][0]["status"] == "RUNNING"
    told.tell([dataclasses.replace(REPORTED, finished_at=2.0)])
    ((run, _),) = trials(search)
    assert run["status"] == "FINISHED"


def test_a_trial_that_was_drawn_again_goes_on_with_its_run(search: RunFolder) -> None:
    told = progress(search)
    told.tell([STARTED])
    told.tell([dataclasses.replace(STARTED, id="b")])
    ((run, _),) = trials(search)
    assert run["tags"]["trial"] == "b"
    told.tell([dataclasses.replace(STARTED, id="c", values={"prob": 0.5, "lr": 0.001})])  # other values
    assert len(trials(search)) == 2


def test_a_probability_per_block(search: RunFolder) -> None:
    values = {"prob_0": 0.0, "prob_1": 0.125}
    progress(search).tell([dataclasses.replace(REPORTED, values=values)])
    ((run, _),) = trials(search)
    assert (run["name"], run["params"]["prob"]) == ("prob=0/0.12", "[0.0, 0.125]")
