"""The flow over real stages, with a real Prefect server; run as a command, as its users do."""

import os
import signal
import sqlite3
from pathlib import Path

import pytest

from tests.flows import api
from tests.flows.project import Project, tracked_project, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
STAGES = {"first": (0.2, []), "right": (2.0, ["first"]), "left": (2.0, ["first"]), "apart": (0.2, [])}


def with_compare(project: Project) -> Project:
    """Make `compare` the last stage, with a table such as the real one writes."""
    raw = {
        name: {
            "cmd": f"python stage.py {name} {seconds}",
            "deps": [f"outs/{other}" for other in upstream],
            "outs": [f"outs/{name}"],
        }
        for name, (seconds, upstream) in STAGES.items()
    }
    raw["compare"] = {
        "cmd": "mkdir -p reports && echo '| method |' > reports/comparison.md",
        "deps": ["outs/left", "outs/right"],
        "outs": ["reports/comparison.md"],
    }
    project.write_stages(raw)
    return project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return with_compare(Project(tmp_path_factory.mktemp("pipeline") / "project", STAGES))


def overlap(project: Project) -> float:
    """Seconds during which both long stages ran."""
    (begin, end), (other_begin, other_end) = project.time_of("left"), project.time_of("right")
    return min(end, other_end) - max(begin, other_begin)


def test_two_slots_run_side_by_side(project: Project, prefect: dict[str, str]) -> None:
    project.run("-m", "flows.train", "--slots", "2", environment=prefect)
    assert overlap(project) > 0.5
    assert project.time_of("first")[1] < min(project.time_of("left")[0], project.time_of("right")[0])
    run = api.newest_run()
    assert run.state is not None
    assert run.state.message == "ran first, right, left, compare"
    assert not (project.folder / "outs" / "apart").exists()
    assert api.artifacts(run.id)["comparison"].startswith("| method |")
    assert float(api.artifacts(run.id)["left"]) == 100


def test_one_slot_runs_one_stage_at_a_time(project: Project, prefect: dict[str, str]) -> None:
    project.run("-m", "flows.train", "left", "right", "--force", environment=prefect)
    assert overlap(project) < 0


def test_a_failure_takes_only_its_dependants_along(project: Project, prefect: dict[str, str]) -> None:
    (project.folder / "fail-left").touch()
    arguments = ("-m", "flows.train", "compare", "apart", "--force", "--slots", "2")
    output = project.run(*arguments, environment=prefect, expect=1)
    sentence = "left failed: left was told to fail; not run because of that: compare"
    assert output.splitlines()[-1] == f"error: {sentence}"
    run = api.newest_run()
    assert run.state is not None
    assert (run.state_name, run.state.message) == ("Failed", sentence)
    assert api.task_states(run.id) == {
        "first": "Completed",
        "right": "Completed",
        "apart": "Completed",
        "left": "Failed",
        "compare": "NotReady",
    }
    (project.folder / "fail-left").unlink()
    project.run("-m", "flows.train", environment=prefect)
    states = api.task_states(api.newest_run().id)
    assert states == {"first": "Skipped", "right": "Skipped", "left": "Completed", "compare": "Completed"}


def test_mistakes_end_the_run_with_a_sentence(project: Project, prefect: dict[str, str]) -> None:
    output = project.run("-m", "flows.train", "compar", environment=prefect, expect=1)
    error = output.splitlines()[-1]
    assert error.startswith("error: targets: dvc.yaml has no stage 'compar'; did you mean compare")
    run = api.newest_run()
    assert run.state is not None
    assert (run.state_name, f"error: {run.state.message}") == ("Failed", error)
    assert "Traceback" not in output


def test_a_signal_ends_everything_and_the_next_run_continues(tmp_path: Path, prefect: dict[str, str]) -> None:
    project = tracked_project(tmp_path / "project")

    def tracked_runs() -> list[tuple[str, str]]:
        with sqlite3.connect(project.folder / "mlflow.db") as database:
            return database.execute("select name, status from runs").fetchall()

    for number in (signal.SIGINT, signal.SIGTERM):
        process = project.start("-m", "flows.train", "tracked", environment=prefect)
        wait_until(lambda: project.started("tracked"), "the stage runs")
        os.kill(process.pid, number)  # to the flow alone, as Prefect's worker does
        output, _ = process.communicate(timeout=90)
        assert project.processes() == [], output
        run = api.newest_run()
        assert run.state_name == "Crashed"
        assert api.task_states(run.id) == {"tracked": "Cancelled"}
        assert tracked_runs() == [("tracked", "KILLED")]
        (project.folder / "times" / "tracked.started").unlink()

    (project.folder / "hurry").touch()
    project.run("-m", "flows.train", "tracked", environment=prefect)
    assert tracked_runs() == [("tracked", "FINISHED")]
