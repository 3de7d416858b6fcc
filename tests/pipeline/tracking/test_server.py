"""Against a real MLflow database; nothing is mocked."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from pipeline.tracking.callback import MlflowCallback
from pipeline.tracking.labels import flatten
from pipeline.tracking.outbox import Outbox
from pipeline.tracking.server import connect
from pipeline.tracking.tracked_run import tracked_run
from stochca.errors import UserError
from stochca.training.callbacks import EvalEvent, StepEvent


@pytest.fixture(scope="module")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without the experiment of these tests; MLflow takes seconds to make one."""
    folder = tmp_path_factory.mktemp("new")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        connect("another")
    return folder / "mlflow.db"


@pytest.fixture(autouse=True)
def in_folder(new_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(new_database, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def status(run_id: str) -> str:
    return str(MlflowClient().get_run(run_id).info.status)


def test_runs_are_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tracked_run("trial", "a", {"stage": "x"}, tmp_path / "id") as run:
        uri = MlflowClient().get_run(run.run_id).info.artifact_uri
    assert uri.startswith(tmp_path.as_uri())
    monkeypatch.chdir("/")
    found = MlflowClient().get_run(run.run_id)
    assert (found.info.run_name, found.info.status, found.data.tags["stage"]) == ("a", "FINISHED", "x")


def test_a_failed_run_says_so_and_is_continued_by_the_next(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), tracked_run("trial", "a", {}, tmp_path / "id") as first:
        raise RuntimeError
    assert status(first.run_id) == "FAILED"
    with tracked_run("trial", "a", {}, tmp_path / "id") as second:
        assert status(second.run_id) == "RUNNING"
    assert second.run_id == first.run_id
    assert status(first.run_id) == "FINISHED"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_as_killed(number: int, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def train() -> None:
        with tracked_run("trial", "a", {}, tmp_path / "id"):
            os.kill(os.getpid(), number)
            time.sleep(20)  # interrupted at once

    with pytest.raises((SystemExit, KeyboardInterrupt)):
        train()
    assert status((tmp_path / "id").read_text()) == "KILLED"
    assert signal.getsignal(signal.SIGTERM) is before


def test_ctrl_c_reaches_a_run_that_started_with_it_ignored(tmp_path: Path) -> None:
    """As shells start jobs in the background."""

    def train() -> None:
        with tracked_run("trial", "a", {}, tmp_path / "id"):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(20)

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt):
            train()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert status((tmp_path / "id").read_text()) == "KILLED"


def test_an_error_that_a_signal_caused_ends_as_the_signal(tmp_path: Path) -> None:
    """Ctrl-C ends the worker processes too, and their end may be noticed before the signal is."""

    def train() -> None:
        with tracked_run("trial", "a", {}, tmp_path / "id"):
            try:
                os.kill(os.getpid(), signal.SIGINT)
            finally:
                raise RuntimeError("a worker exited unexpectedly")

    with pytest.raises(KeyboardInterrupt):
        train()
    assert status((tmp_path / "id").read_text()) == "KILLED"


@pytest.fixture(params=[signal.SIGTERM, signal.SIGINT])
def number(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def outer_signals(number: int) -> Iterator[list[int]]:
    """Signals that reach the handler outside of the run; without one they would end the tests."""
    arrived: list[int] = []
    before = signal.signal(number, lambda number, frame: arrived.append(number))
    yield arrived
    signal.signal(number, before)


ENDS: Any = (SystemExit, KeyboardInterrupt)


def test_a_signal_while_the_run_starts_waits_until_its_id_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outer_signals: list[int], number: int
) -> None:
    start_run: Callable[..., Any] = mlflow.start_run

    def interrupted(**options: Any) -> Any:
        run = start_run(**options)
        os.kill(os.getpid(), number)
        return run

    monkeypatch.setattr(mlflow, "start_run", interrupted)
    entered = False
    with pytest.raises(ENDS) as end, tracked_run("trial", "a", {}, tmp_path / "work" / "id"):
        entered = True
    assert end.type is KeyboardInterrupt or end.value.code == 143
    assert (entered, outer_signals) == (False, [])
    assert status((tmp_path / "work" / "id").read_text()) == "KILLED"
    assert mlflow.active_run() is None


def test_a_signal_while_metrics_are_sent_waits_until_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outer_signals: list[int], number: int
) -> None:
    log_batch = MlflowClient.log_batch
    seen: list[str] = []

    def interrupted(client: MlflowClient, run_id: str, **batch: Any) -> None:
        seen.append("begins")
        if len(seen) == 1:
            os.kill(os.getpid(), number)
        log_batch(client, run_id, **batch)
        seen.append("ends")

    monkeypatch.setattr(MlflowClient, "log_batch", interrupted)

    def train() -> None:
        with tracked_run("trial", "a", {}, tmp_path / "id") as run:
            run.add_metrics({"loss": 1.0})
            run.send()
            time.sleep(20)  # not reached

    with pytest.raises(ENDS) as end:
        train()
    assert end.type is KeyboardInterrupt or end.value.code == 143
    assert (seen, outer_signals) == (["begins", "ends"], [])
    assert status((tmp_path / "id").read_text()) == "KILLED"


@pytest.mark.parametrize(("error", "expected"), [(None, "FINISHED"), (RuntimeError, "FAILED")])
def test_a_signal_while_the_run_ends_waits_until_it_has_ended(
    error: type[Exception] | None,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    outer_signals: list[int],
    number: int,
) -> None:
    end_run: Callable[..., Any] = mlflow.end_run

    def interrupted(*arguments: Any) -> None:
        os.kill(os.getpid(), number)
        end_run(*arguments)

    monkeypatch.setattr(mlflow, "end_run", interrupted)

    def train() -> None:
        with tracked_run("trial", "a", {}, tmp_path / "id"):
            if error:
                raise error

    with pytest.raises(error or ENDS):
        train()
    assert (status((tmp_path / "id").read_text()), outer_signals) == (expected, [])
    os.kill(os.getpid(), number)
    assert outer_signals == [number]  # the handler from before is back


def test_a_second_signal_does_not_disturb_the_unwinding(
    tmp_path: Path, outer_signals: list[int], number: int
) -> None:
    unwound = False

    def train() -> None:
        nonlocal unwound
        with tracked_run("trial", "a", {}, tmp_path / "id"):
            try:
                os.kill(os.getpid(), number)
            finally:
                os.kill(os.getpid(), number)
                unwound = True

    with pytest.raises(ENDS):
        train()
    assert unwound
    assert status((tmp_path / "id").read_text()) == "KILLED"


def test_a_run_that_was_deleted_is_not_continued(tmp_path: Path) -> None:
    with tracked_run("trial", "a", {}, tmp_path / "id") as first:
        pass
    MlflowClient().delete_run(first.run_id)
    with tracked_run("trial", "a", {}, tmp_path / "id") as second:
        pass
    assert second.run_id != first.run_id


def test_the_experiment_is_made_once() -> None:
    experiment_id = connect("trial")
    assert connect("trial") == experiment_id
    tags = MlflowClient().get_experiment(experiment_id).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        (
            "./mlruns",
            "MLFLOW_TRACKING_URI ./mlruns can't be used: MLflow no longer tracks to a folder; set it",
        ),
        ("file:///runs", "MLFLOW_TRACKING_URI file:///runs can't be used: MLflow no longer tracks to a fol"),
        ("foo://bar", "MLFLOW_TRACKING_URI foo://bar can't be used: MLflow knows no such kind of address;"),
        (
            "sqlite:///notes.txt",
            "MLFLOW_TRACKING_URI sqlite:///notes.txt can't be used: .*not a database; set",
        ),
        (
            "http://me:secret@127.0.0.1:9",
            r"MLFLOW_TRACKING_URI http://\*\*\*@127.0.0.1:9 .*no server answers",
        ),
    ],
)
def test_an_address_that_is_none_is_one_sentence(
    uri: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("no database\n" * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    environment = set(os.environ)
    started = time.monotonic()
    with pytest.raises(UserError, match=sentence) as error:
        connect("trial")
    assert time.monotonic() - started < 30
    assert "\n" not in str(error.value)
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in set(os.environ) - environment  # uploads stay patient


def test_a_damaged_database_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database\n" * 100)
    with pytest.raises(UserError, match=r"mlflow.db can't be used .*not a database; move it away"):
        connect("trial")


def test_an_experiment_that_was_deleted() -> None:
    experiment_id = connect("trial")
    MlflowClient().delete_experiment(experiment_id)
    with pytest.raises(UserError, match=f"tracking.experiment 'trial' was deleted.*-id {experiment_id}"):
        connect("trial")


def test_a_continued_run_keeps_its_params(tmp_path: Path) -> None:
    for values in ({"a": 1, "b": "x"}, {"a": 2, "c": None}, {}):
        with tracked_run("trial", "a", {}, tmp_path / "id") as run:
            run.add_params(values)
    assert MlflowClient().get_run(run.run_id).data.params == {"a": "1", "b": "x", "c": "None"}


def step(number: int) -> StepEvent:
    return StepEvent(step=number, steps=9, loss=1 / number, lr=0.1, images_per_second=5.0)


def test_steps_that_are_repeated_after_a_kill_are_logged_once(tmp_path: Path) -> None:
    with tracked_run("trial", "a", {}, tmp_path / "id") as run:
        for steps in (range(1, 6), range(4, 8)):  # killed after 5, continued from the checkpoint at 3
            callback = MlflowCallback(Outbox.of_run(run.run_id, "a"))
            for number in steps:
                callback.on_step(step(number))
                if number % 3 == 0 or number == 5:
                    callback.on_eval(EvalEvent(number, 9, loss=2.0, accuracy=0.5, is_best=True))
            callback.on_end()
    client = MlflowClient()
    losses = client.get_metric_history(run.run_id, "train_loss")
    assert sorted(point.step for point in losses) == [1, 2, 3, 4, 5, 6, 7]
    assert all(point.value == pytest.approx(1 / point.step) for point in losses)
    assert sorted(p.step for p in client.get_metric_history(run.run_id, "validation_accuracy")) == [3, 5, 6]


def test_nested_settings_have_dotted_names() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": [3]}) == {"a.b": 1, "a.c.d": 2, "e": [3]}
