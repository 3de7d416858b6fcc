"""The pipeline as its users run it: real DVC, real MLflow, real files, a tiny task."""

import base64
import json
import shutil
import signal
import sqlite3
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.e2e.workspace import SLOWER, Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
# All but the search, which nothing here waits for; tests/e2e/test_tuned.py runs it.
REPRO = ("dvc", "repro", "compare")
STEPS = 24  # enough to be ended three times
RUNS = ("finetune-all-0", "stochca-all-0", "stochca+swad-all-0")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace after its first `dvc repro compare`; tests that change it work on a copy."""
    workspace = Workspace(tmp_path_factory.mktemp("pipeline") / "project", SLOWER)
    workspace.edit_params(lambda raw: raw["compare"].update(analysed=["stochca"]))
    workspace.edit_params(lambda raw: raw["training"].update(steps=STEPS, checkpoints=8))
    workspace.run(*REPRO)
    workspace.commit()
    return workspace


@pytest.fixture
def copied(finished: Workspace, tmp_path: Path) -> Workspace:
    return finished.copied_to(tmp_path / "project")


def stages_that_run(workspace: Workspace) -> set[str]:
    output = workspace.run(*REPRO)
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


def runs(workspace: Workspace) -> list[tuple[str, str]]:
    """Name and status of every run in MLflow."""
    with sqlite3.connect(workspace.folder / "mlflow.db") as database:
        return database.execute("select name, status from runs").fetchall()


def test_everything_is_there(finished: Workspace) -> None:
    for name in RUNS:
        metrics = json.loads((finished.folder / "metrics" / f"{name}.json").read_text())
        assert 0 <= metrics["test_accuracy"] <= 1
        card = json.loads((finished.folder / "models" / name / "model.json").read_text())
        assert card["classes"] == ["blue", "green", "red"]
        assert (finished.folder / "results" / name / "predictions.parquet").exists()
    rows = json.loads((finished.folder / "reports" / "comparison.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {"finetune", "stochca", "stochca+swad"}
    page = (finished.folder / "reports" / "index.html").read_text()
    assert "stochca+swad" in page
    # Looked into block by block, on the page and in MLflow.
    blocks = finished.folder / "reports" / "blocks" / "stochca" / "blocks.png"
    shown = base64.b64encode(blocks.read_bytes()).decode()
    assert f'src="data:image/png;base64,{shown}"' in page
    assert next((finished.folder / "mlruns").glob("**/artifacts/analysis/attention.png")).exists()
    # Of finished runs no checkpoint stays, and nothing that MLflow lacks.
    assert [path for path in (finished.folder / "work").rglob("*") if path.is_file()] == []


def test_mlflow_has_every_run_and_a_parent_per_method(finished: Workspace) -> None:
    found = dict(runs(finished))
    assert set(RUNS) <= set(found)
    assert set(found.values()) == {"FINISHED"}
    with sqlite3.connect(finished.folder / "mlflow.db") as database:
        parents = dict(
            database.execute(
                "select runs.name, tags.value from runs join tags on runs.run_uuid = tags.run_uuid "
                "where tags.key = 'mlflow.parentRunId'"
            ).fetchall()
        )
        steps = database.execute(
            "select count(*), count(distinct metrics.step) from metrics join runs using (run_uuid) "
            "where runs.name = 'stochca-all-0' and key = 'train_loss'"
        ).fetchone()
    assert set(parents) == set(RUNS)
    assert steps == (STEPS, STEPS)


def test_nothing_changed_runs_nothing(finished: Workspace) -> None:
    assert "up to date" in finished.run(*REPRO)


def test_what_is_edited_trains_and_nothing_else(copied: Workspace) -> None:
    """One method's probability, and a seed more: every method gets that one, and a spread."""

    def edit(raw: dict[str, Any]) -> None:
        raw["methods"]["stochca"]["attention"].update(prob=0.4)
        raw["protocol"].update(seeds=[0, 1], combined=[])

    copied.edit_params(edit)
    trained = {"stochca@all-0", "stochca@all-1", "baseline@finetune-all-1"}
    assert stages_that_run(copied) == {*trained, "analyse@stochca", "compare"}
    assert "stochca" in copied.run("dvc", "metrics", "diff")
    rows = json.loads((copied.folder / "reports" / "comparison.json").read_text())["rows"]
    for row in rows:
        accuracies = [
            json.loads((copied.folder / "metrics" / f"{row['method']}-all-{seed}.json").read_text())[
                "test_accuracy"
            ]
            for seed in (0, 1)
        ]
        assert row["test_accuracy_n"] == 2
        assert row["test_accuracy_mean"] == pytest.approx(statistics.fmean(accuracies))
        assert row["test_accuracy_std"] == pytest.approx(statistics.stdev(accuracies))


def test_dvc_shows_metrics_and_plots(finished: Workspace) -> None:
    table = finished.run("dvc", "metrics", "show")
    assert "test_accuracy" in table
    finished.run("dvc", "plots", "show", "--out", "plots_page")
    page = (finished.folder / "plots_page" / "index.html").read_text()
    assert "validation_accuracy" in page
    assert "stochca+swad" in page


def test_a_second_clone_pulls_the_same_results(copied: Workspace, tmp_path: Path) -> None:
    copied.run("dvc", "remote", "add", "--default", "storage", str(tmp_path / "storage"))
    copied.run("dvc", "push")
    copied.commit()
    clone = Workspace.there(tmp_path / "clone")
    copied.run("git", "clone", "--quiet", ".", str(clone.folder))
    clone.run("dvc", "pull")
    assert "up to date" in clone.run(*REPRO)
    for name in (
        "reports/index.html",
        "models/stochca-all-0/model.safetensors",
        "metrics/finetune-all-0.json",
    ):
        assert (clone.folder / name).read_bytes() == (copied.folder / name).read_bytes()


def test_a_training_that_is_ended_three_times_ends_with_the_same_weights(copied: Workspace) -> None:
    """By Ctrl-C, by SIGTERM and by a kill, each as soon as there is a new checkpoint."""
    expected = load_file(copied.folder / "models" / "stochca-all-0" / "model.safetensors")
    shutil.rmtree(copied.folder / ".dvc" / "cache")  # or DVC would take the weights from there
    (copied.folder / "mlflow.db").unlink()
    repro = ("dvc", "repro", "--force", "--no-run-cache", "--single-item", "stochca@all-0")

    def written() -> list[int]:
        return [path.stat().st_mtime_ns for path in copied.checkpoints("stochca-all-0")]

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        before = written()

        def is_new(before: list[int] = before) -> bool:
            return written() not in ([], before)

        output = copied.kill_when(is_new, *repro, number=number)
        assert ("continues after step" in output) == (number != signal.SIGINT)
        assert not (copied.folder / "models" / "stochca-all-0").exists()
        status = "RUNNING" if number == signal.SIGKILL else "KILLED"
        assert runs(copied) == [("stochca-all-0", status)], output
    output = copied.run("dvc", "repro", "stochca@all-0")
    assert "continues after step" in output
    assert runs(copied) == [("stochca-all-0", "FINISHED")]  # the same run
    found = load_file(copied.folder / "models" / "stochca-all-0" / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(found[name].equal(value) for name, value in expected.items())


def test_settings_edited_while_training_count_from_the_next_start_on(copied: Workspace) -> None:
    process = copied.start("dvc", "repro", "--force", "--no-run-cache", "--single-item", "stochca@all-0")
    while not copied.checkpoints("stochca-all-0"):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    copied.edit_params(lambda raw: raw["methods"]["stochca"]["attention"].update(prob=0.4))
    output = process.communicate(timeout=300)[0]
    assert process.returncode != 0
    assert "params.yaml was changed while stochca-all-0 was under way" in output
    trained = copied.folder / "results" / "stochca-all-0" / "run.json"
    assert json.loads(trained.read_text())["config"]["attention"]["prob"] == 0.1
    assert "Running stage 'stochca@all-0'" in copied.run("dvc", "repro", "stochca@all-0")
    assert json.loads(trained.read_text())["config"]["attention"]["prob"] == 0.4


def test_mistakes_end_with_code_2_and_leave_nothing_behind(copied: Workspace) -> None:
    params = copied.folder / "params.yaml"
    right = params.read_text()
    before = {path for path in copied.folder.rglob("*") if "__pycache__" not in path.parts}
    for stage, section, key, value, sentence in (
        ("backbone", "training", "learning_rate", 1, "unknown key 'training.learning_rate'"),
        ("backbone", "backbone", "weights", "file:nowhere.safetensors", "nowhere.safetensors"),
        ("backbone", "backbone", "name", "resnet18", "ResNet"),
        ("prepare", "dataset", "root", "nowhere", "nowhere"),
    ):
        params.write_text(right)
        edit_key(copied, section, key, value)
        output = copied.run("python", "-m", f"pipeline.{stage}", expect=2)
        assert output.count("\n") == 1
        assert output.startswith("error: ")
        assert sentence in output
        after = {path for path in copied.folder.rglob("*") if "__pycache__" not in path.parts}
        assert after == before, f"after the mistake in {section}.{key}"


def edit_key(workspace: Workspace, section: str, key: str, value: object) -> None:
    workspace.edit_params(lambda raw: raw[section].update({key: value}))
