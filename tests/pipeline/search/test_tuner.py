"""Who goes on at a rung, where rungs are not at equal distances of steps."""

import contextlib
import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from pipeline.search.records import REACHED
from pipeline.search.task import Task, plan
from pipeline.search.trial import EVALUATIONS
from pipeline.search.tuner import Stopper
from tests.pipeline.search.small_project import write_project

STOP, CONTINUE = TrialScheduler.STOP, TrialScheduler.CONTINUE


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("small")
    params = write_project(folder, {"training": {"steps": 10}, "reduction": 2})
    with contextlib.chdir(folder):
        return plan(params)


def test_trials_are_stopped_at_every_rung(task: Task) -> None:
    """Four evaluations of ten steps, after 3, 5, 8 and 10: rungs after 3, 5 and 10."""
    assert task.rungs == [3, 5, 10]
    stopper, controller = Stopper(task), SimpleNamespace()

    def trial(name: str) -> Any:
        made = SimpleNamespace(trial_id=name, config={"prob": 0.3}, last_result=None)
        stopper.on_trial_add(controller, made)
        return made

    def decision(trial: Any, rung: int, accuracy: float) -> str:
        result = {
            REACHED: accuracy,
            EVALUATIONS: task.evaluations(task.rungs[rung]),
            "step": task.rungs[rung],
        }
        return stopper.on_trial_result(controller, trial, result)

    first, second, third = trial("first"), trial("second"), trial("third")
    assert decision(first, 0, 0.7) == CONTINUE  # there is none to compare it with
    assert decision(first, 1, 0.9) == CONTINUE
    assert decision(second, 0, 0.8) == CONTINUE
    assert decision(third, 0, 0.6) == STOP
    assert decision(second, 1, 0.5) == STOP
    assert decision(first, 2, 0.9) == STOP  # its end
    # Plain fine-tuning goes on, however bad.
    plain = trial("plain")
    plain.config = {"prob": 0.0}
    assert decision(plain, 0, 0.1) == CONTINUE


def test_a_search_that_goes_on_stops_as_before(task: Task) -> None:
    """What Ray Tune restores has reached a rung already; less is better where a loss is searched by."""
    rung = task.rungs[0]
    kept = {"rungs": [{"step": rung, "values": [0.4, 0.6]}]}

    def decision(task: Task, value: float) -> str:
        stopper, controller = Stopper(task), SimpleNamespace()
        for name, last_result in (("kept", kept), ("new", None)):
            trial = SimpleNamespace(trial_id=name, config={"prob": 0.3}, last_result=last_result)
            stopper.on_trial_add(controller, trial)
        result = {REACHED: value, EVALUATIONS: task.evaluations(rung), "step": rung}
        return stopper.on_trial_result(controller, trial, result)

    assert (decision(task, 0.7), decision(task, 0.3)) == (CONTINUE, STOP)
    by_loss = dataclasses.replace(task, selection="log_loss")
    assert (decision(by_loss, 0.3), decision(by_loss, 0.7)) == (CONTINUE, STOP)
