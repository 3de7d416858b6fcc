"""A run whose process and runner are killed without a word."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from flows.serving import alerts
from tests.flows import api
from tests.flows.project import Project, wait_until


@pytest.mark.slow
def test_a_run_without_heartbeats_becomes_crashed(tmp_path: Path, prefect: dict[str, str]) -> None:
    project = Project(tmp_path / "project", {"compare": (300.0, [])})
    alerts.register_automation()
    alerts.register_automation(
        seconds=40
    )  # twice: it must not become two automations; heartbeats come every 30 s
    assert len(api.automations(alerts.AUTOMATION)) == 1
    process = project.start("-m", "flows.train", environment=prefect)
    try:
        wait_until(lambda: project.started("compare"), "the stage runs")
        run = api.newest_run()
        assert run.state_name == "Running"
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
        for child in children:  # the machine is gone, and the stage with it
            child.kill()
        process.wait()
    wait_until(lambda: api.state_name(run.id) == "Crashed", "the run is found to be dead", seconds=150)
    assert "no heartbeat for 40 seconds" in str(api.read_run(run.id).state)
