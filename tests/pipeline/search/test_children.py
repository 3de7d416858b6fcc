"""Against a real MLflow: its database, and a server that is killed."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipeline.search.children import Children
from pipeline.search.journal import Journal
from pipeline.search.messenger import Message, message_of
from pipeline.search.progress import SearchProgress
from pipeline.search.records import METRIC, Record
from pipeline.tracking.server import connect
from tests.pipeline.mlflow_server import Server, running

STEPS = 8
KILLED = RunStatus.to_string(RunStatus.KILLED)


def record(name: str) -> Record:
    return Record(name, 1, {"prob": 0.1}, [0.5], 0.5, None, STEPS, node="here")


def children() -> Children:
    """Of a search that has just begun."""
    experiment = connect("trial")
    return Children(MlflowClient().create_run(experiment).info.run_id, seeds=[0])


def status(children: Children, trial: str) -> str:
    return str(MlflowClient().get_run(children.runs[trial]).info.status)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


def messages(trial: str) -> list[Message]:
    result = {"step": STEPS, METRIC: 0.5, "accuracies": [0.5], "std": None, "seconds": 1.0, "node": "here"}
    return [
        message_of(kind, trial, "1_prob=0.1", {"prob": 0.1}, {**result, "problem": None} if told else {})
        for kind, told in (("started", False), ("reported", True), ("finished", True))
    ]


def journal(folder: Path, children: Children) -> Journal:
    return Journal(folder, STEPS, SearchProgress(2, STEPS, 1), children)


def tell_of_a_trial(begun: Children, journal: Journal) -> None:
    """Of one that starts when the server is there again: nothing is left of the loss."""
    for message in messages("told"):
        journal.take(message)
    assert status(begun, "told") == "FINISHED"
    assert MlflowClient().get_run(begun.runs["told"]).data.metrics[METRIC] == 0.5


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.usefixtures("in_folder")
def test_a_search_outlives_a_database_that_is_lost_before_a_trial_starts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun = children()
    reader = journal(tmp_path, begun)
    database = Path("mlflow.db")
    whole = database.read_bytes()
    database.write_bytes(b"x" * len(whole))
    for message in messages("lost"):
        reader.take(message)
    assert ["file is not a database" in warning for warning in warnings(caplog)] == [True] * 3
    (known,) = reader.complete([])
    assert (known.mean, known.problem, known.finished_at is not None) == (0.5, None, True)
    database.write_bytes(whole)
    tell_of_a_trial(begun, reader)


@pytest.mark.usefixtures("in_folder")
@pytest.mark.parametrize("error", [OSError("no space left"), MlflowException("")], ids=["a store's", "empty"])
def test_no_error_of_mlflow_or_its_stores_ends_a_search(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    begun = children()
    monkeypatch.setattr(begun.client, "create_run", fails)
    begun.report(record("a"))
    reason = str(error) or type(error).__name__
    assert warnings(caplog) == [f"trials did not reach MLflow: {reason}"]


@pytest.mark.usefixtures("in_folder")
def test_a_trial_that_cannot_be_told_keeps_no_other_from_being_interrupted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun = children()
    for trial in ("a", "b"):
        begun.start(record(trial))
    begun.client.delete_run(begun.runs["a"])  # which MLflow then refuses to end
    begun.interrupt(KILLED)
    assert (status(begun, "a"), status(begun, "b")) == ("RUNNING", "KILLED")
    (warning,) = warnings(caplog)
    assert warning.startswith("trials did not reach MLflow: ")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with running(tmp_path) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        yield server


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_search_outlives_a_server_that_is_lost_before_a_trial_starts(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun = children()
    begun.start(record("under way"))
    reader = journal(tmp_path, begun)
    server.kill()
    started = time.monotonic()
    for message in messages("lost"):
        reader.take(message)
    begun.interrupt(KILLED)
    assert time.monotonic() - started < 60  # MLflow's own patience takes minutes, each time
    assert warnings(caplog) == ["trials did not reach MLflow: no server answers there"] * 4
    server.start()
    tell_of_a_trial(begun, reader)
