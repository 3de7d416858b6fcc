"""A search that is interrupted twice, in two ways, and comes to its end all the same."""

import csv
import os
import signal
import sqlite3
import time
from pathlib import Path
from subprocess import Popen
from typing import Any

import psutil
import pytest
import yaml

from tests.pipeline.search.small_project import STEPS, start_search, write_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
Records = dict[Path, int]  # when what a seed reached at a rung was written
CODES = {signal.SIGTERM: 143, signal.SIGKILL: -9}


def records(folder: Path) -> Records:
    found = folder.glob("work/tune/*/trials/*/seed-*/step-*.json")
    return {path: path.stat().st_mtime_ns for path in found}


def runs(folder: Path) -> dict[str, tuple[str, str]]:
    """Name and status of every run in MLflow, by its id."""
    with sqlite3.connect(folder / "mlflow.db") as database:
        rows = database.execute("select run_uuid, name, status from runs").fetchall()
    return {run: (name, status) for run, name, status in rows}


def interrupt_after(new: int, process: Popen[str], folder: Path, before: Records, number: int) -> str:
    """Send a signal once there are `new` more records; nothing on record may have been trained again."""
    while len(now := records(folder)) < len(before) + new:
        assert process.poll() is None, f"ended before it could be interrupted:\n{process.communicate()[0]}"
        assert {path: now.get(path) for path in before} == before
        time.sleep(0.02)
    started = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=120)
    _, alive = psutil.wait_procs(started, timeout=60)
    assert alive == [], "processes of Ray outlive the search"
    return output


def set_tune(folder: Path, **settings: Any) -> None:
    path = folder / "params.yaml"
    raw = yaml.safe_load(path.read_text())
    raw["tune"].update(settings)
    path.write_text(yaml.safe_dump(raw))


def test_interrupted_searches_go_on(tmp_path: Path) -> None:
    """Also with more trials at a time, which may change even meanwhile; what another search kept stays."""
    folder = tmp_path / "project"
    write_project(folder, {"trials": 4, "seeds": [0, 1], "concurrent": 1})
    another = folder / "work" / "tune" / "0123456789ab" / "trials"
    another.mkdir(parents=True)
    kept = records(folder)
    # A trial that runs to its end has six records: three rungs of two seeds. One that is stopped has two.
    for number, new in ((signal.SIGTERM, 7), (signal.SIGKILL, 2)):
        process = start_search(folder)
        output = interrupt_after(new, process, folder, kept, number)
        assert process.returncode == CODES[number], output
        assert "Traceback" not in output
        assert not (folder / "reports").exists()
        if number != signal.SIGKILL:
            found = list(runs(folder).values())
            assert ("search", "KILLED") in found
            assert {status for _, status in found} == {"KILLED", "FINISHED"}
        kept = records(folder)
        assert ("continues the search" in output) == (number != signal.SIGTERM)

    set_tune(folder, concurrent="auto", max_failures=1, resources={"cpu": 0.5, "gpu": 0})
    process = start_search(folder)
    while len(records(folder)) == len(kept):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    set_tune(folder, concurrent=2, max_failures=0, resources={"cpu": 1, "gpu": 0})
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "continues the search" in output
    with (folder / "reports" / "tune" / "trials.csv").open() as file:
        trials = list(csv.DictReader(file))
    assert [trial["trial"] for trial in trials] == ["1", "2", "3", "4"]
    assert [trial["prob"] for trial in trials[:2]] == ["0.0", "0.1"]
    assert len({trial["prob"] for trial in trials}) == 4  # Optuna remembers what it has drawn
    assert trials[0]["steps"] == str(STEPS)
    found = list(runs(folder).values())
    assert len({name for name, _ in found}) == len(found) == 1 + 4  # each run once
    assert {status for _, status in found} == {"FINISHED"}
    with sqlite3.connect(folder / "mlflow.db") as database:
        query = "select run_uuid, step from metrics where key = 'validation_accuracy'"
        points = database.execute(query).fetchall()
    assert len(points) == len(set(points))
    assert list((folder / "work" / "tune").iterdir()) == [another.parent]
