"""Against a real MLflow database; nothing is mocked."""

import os
import shutil
import time
from pathlib import Path

import pytest
from mlflow.entities import Experiment
from mlflow.tracking import MlflowClient

from pipeline.tracking.labels import flatten
from pipeline.tracking.server import _check_reachable, connect
from stochca.errors import UserError


def test_the_experiment_is_made_once() -> None:
    experiment_id = connect("trial")
    assert connect("trial") == experiment_id
    tags = MlflowClient().get_experiment(experiment_id).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"


def test_a_database_of_ones_own_is_the_projects_in_a_copy_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC makes one for `dvc exp run --temp`, and deletes it."""
    shutil.move("mlflow.db", "runs.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "standalone" / "tmpx1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    experiment_id = connect("trial")
    found = MlflowClient().get_experiment(experiment_id)
    assert found.artifact_location == (tmp_path / "mlruns").as_uri()
    assert list(copy.iterdir()) == []


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


def test_a_server_whose_files_lie_in_a_folder_of_its_own_machine(tmp_path: Path) -> None:
    """Its clients would write them on theirs, where nobody finds them."""

    def experiment(location: str) -> Experiment:
        return Experiment("7", "trial", location, "active")

    for location in ("mlflow-artifacts:/7", "s3://bucket/7", f"file://{tmp_path}/new/7"):
        _check_reachable(experiment(location), "http://host:5000")
    _check_reachable(experiment("file:///not/there/mlruns/7"), "sqlite:///other.db")
    for location in ("file:///not/there/mlruns/7", "/not/there/mlruns"):
        with pytest.raises(UserError, match=r"http://host:5000 keeps the files .* of the server's machine"):
            _check_reachable(experiment(location), "http://host:5000")


def test_nested_settings_have_dotted_names() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": [3]}) == {"a.b": 1, "a.c.d": 2, "e": [3]}
